//! A page of many metrics from made-up data: `SWEEP_FIGURES=folder cargo nextest run a_page_of_43` leaves it to look
//! at.

use chrono::DateTime;
use fit::{Axis, Convention, LawName, Options, Points, Response, fit};

use super::{Metric, Report, render};
use crate::study::{OtherLaw, Panel, PanelFit, Study, StudyJob, StudyMeasurement};

/// Models of N parameters on D samples, 29 cells.
fn jobs() -> Vec<StudyJob> {
    let models =
        [("ViT-B-32", 151e6, 7.4), ("ViT-B-16", 150e6, 20.5), ("ViT-L-14", 428e6, 87.7), ("ViT-H-14", 986e6, 190.9)];
    let samples = [3_000_000_000i64, 13_000_000_000, 34_000_000_000];
    let sizes = [80_000_000i64, 400_000_000, 2_000_000_000];
    let mut jobs = Vec::new();
    for (model, parameters, gmacs) in models {
        for seen in samples {
            for size in sizes {
                let number = jobs.len();
                jobs.push(StudyJob {
                    job_key: format!("{number:064x}"),
                    state: "done".to_owned(),
                    reason: None,
                    stderr_tail: None,
                    runner: "clip".to_owned(),
                    runner_version: "1".to_owned(),
                    model: model.to_owned(),
                    parameters: Some(parameters as i64),
                    samples_seen: Some(seen),
                    data_size: Some(size),
                    unique_samples: Some(size),
                    seed: 0,
                    gmacs_samples: Some(gmacs * seen as f64),
                    train_flops: None,
                    six_nd: None,
                    parent_samples: 0,
                    is_trunk: false,
                    train_loss: Some(1.5),
                    train_secs: Some(3600.0),
                    spikes: None,
                    rollbacks: None,
                    skipped_samples: None,
                    data_wait_secs: None,
                    gpu_hours: Some(10.0),
                    gpu_joules: None,
                    cpu_joules: None,
                    source: None,
                    pool: Some("laion".to_owned()),
                    eval_secs: None,
                    attempts: 1,
                    folder: Some(format!(".sweep/jobs/{number}/attempt-1")),
                    device: Some("A100".to_owned()),
                    done_at: None,
                });
            }
        }
    }
    jobs.truncate(29);
    jobs
}

fn report(names: &[(String, &str)]) -> Report {
    let jobs = jobs();
    let mut study = Study {
        name: "made-up".to_owned(),
        question: "Do </script><script>alert(1)</script> scale?".to_owned(),
        spec: String::new(),
        curves: Vec::new(),
        measurements: Vec::new(),
        pools: Vec::new(),
        tuned: Vec::new(),
        tuned_cells: Vec::new(),
        read_at: DateTime::UNIX_EPOCH,
        jobs: jobs.clone(),
    };
    for (number, (dataset, metric)) in names.iter().enumerate() {
        for (place, job) in jobs.iter().enumerate() {
            // Three data sizes a model and samples seen: as often above as below along C.
            let noise: f64 = if place % 2 == 0 { 0.03 } else { -0.03 };
            let slope = 0.02 * (number % 7) as f64;
            let error = 0.9 * (job.gmacs_samples.unwrap_or(1.0) / 2e10).powf(-slope) * noise.exp();
            study.measurements.push(StudyMeasurement {
                job_key: job.job_key.clone(),
                dataset: dataset.clone(),
                metric: (*metric).to_owned(),
                value: 1.0 - error,
                standard_error: Some(0.002),
                chance: Some(0.001),
                count: Some(50_000),
            });
        }
    }
    let metrics = names.iter().map(|(dataset, metric)| {
        let mut panel = Panel { dataset: dataset.clone(), metric: (*metric).to_owned(), fits: Vec::new() };
        let rows = study.observations(dataset, metric, Convention::GmacsSamples);
        let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
        panel.fits = [Points::All, Points::Pareto, Points::Bins(5)]
            .map(|points| {
                let options = Options { points, resamples: 200, ..Options::new(panel.response()) };
                let others = vec![OtherLaw {
                    law: LawName::Saturating(Axis::C),
                    fit: fit(&rows, &Options { law: LawName::Saturating(Axis::C), ..options.clone() }),
                }];
                PanelFit { policy: points.to_string(), fit: fit(&rows, &options), stored: None, others }
            })
            .into();
        Metric { panel, analysis: None }
    });
    Report {
        metrics: metrics.collect(),
        compute: Convention::GmacsSamples,
        headline: None,
        seed: 0,
        code_version: "0".to_owned(),
        study,
    }
}

fn names(count: usize) -> Vec<(String, &'static str)> {
    let one = |number: usize| match number % 4 {
        0 => (format!("vtab/task-{number}"), "acc1"),
        1 => (format!("imagenet-a-{number}"), "acc1"),
        2 => (format!("captions-{number}"), "image_retrieval_recall@5"),
        _ => (format!("other-{number}"), "acc1"),
    };
    (0..count).map(one).collect()
}

#[test]
fn a_page_of_43_metrics_is_small_and_whole() {
    let report = report(&names(43));
    let html = render(&report).expect("it can be drawn").html;
    if let Some(folder) = std::env::var_os("SWEEP_FIGURES") {
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        std::fs::write(std::path::Path::new(&folder).join("page.html"), &html).expect("it can be written");
    }
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
    assert_eq!(html.matches("<script").count(), 2, "the data and the script");
    assert_eq!(html.matches("</script").count(), 2);
    assert_eq!(html.matches("<details class=\"tile").count(), 43);
    // A law with an offset in every large figure, by each choice of points, hidden until it is chosen.
    assert_eq!(html.matches("<g class=\"l l1\" display=\"none\">").count(), 43);
    assert!(html.contains("name=\"law\" id=\"law-1\"") && html.contains(">with an offset</label>"));
    // Of every figure of jobs, the first job's mark.
    assert!(html.matches("data-j=\"0\"").count() >= 3 * 43, "{}", html.matches("data-j=\"0\"").count());
    for (number, (dataset, _)) in names(43).iter().enumerate() {
        assert!(html.contains(&format!("id=\"m{number}\"")) && html.contains(dataset.as_str()));
    }
}

#[test]
fn a_law_of_n_and_d_is_drawn_at_its_best() {
    let mut report = report(&names(4));
    let study = report.study.clone();
    for Metric { panel, .. } in &mut report.metrics {
        let rows = study.observations(&panel.dataset, &panel.metric, Convention::GmacsSamples);
        let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
        let law = LawName::Chinchilla;
        for one in &mut panel.fits {
            let points = one.policy.parse().expect("a policy");
            let options = Options { law, points, resamples: 40, starts: 4, ..Options::new(Response::Fraction) };
            one.others.push(OtherLaw { law, fit: fit(&rows, &options) });
        }
    }
    let html = render(&report).expect("it can be drawn").html;
    assert!(html.contains("id=\"law-2\" value=\"2\"><label for=\"law-2\">of N and D, the best at each C</label>"));
    assert!(html.contains("main:has(#law-2:checked) .l2 { display: inline; }"));
    // The grid has few sizes of model on the frontier, and no law through five bins.
    let without = html.matches("no such law through these").count();
    assert!(html.matches("<g class=\"l l2\" display=\"none\">").count() == 4 && without <= 8, "{without}");
    // Its exponents, and no room for what else it has.
    for (number, layer) in html.split("<g class=\"l l2\" display=\"none\">").skip(1).enumerate() {
        let layer = layer.split("class=\"l l").next().unwrap_or_default();
        let exponents = layer.contains(">α ") && layer.contains('β');
        assert!(exponents && !layer.contains(">A ") && layer.contains("<polyline"), "{number}: {layer}");
    }
}

#[test]
fn paper_holds_what_tiles_hold_of_few_metrics() {
    let few = render(&report(&names(3))).expect("it can be drawn").html;
    assert!(few.contains("<div class=\"tiles few\">") && !few.contains("fit on paper"));
    let many = render(&report(&names(7))).expect("it can be drawn").html;
    assert!(many.contains("<div class=\"tiles\">") && many.contains("The last 2 metrics don't fit on paper"));
}

#[test]
fn the_answer_is_made_of_verdicts_and_intervals() {
    let mut report = report(&names(7));
    // By its place: α = −0.02 · place, so the first has none.
    let answer = super::answer::answer(&report);
    assert!(answer.contains("<b>6 of 7 metrics scale with compute</b>"), "{answer}");
    assert!(answer.contains("vtab/task-0/acc1</a> shows no scaling"), "{answer}");
    assert!(
        answer.contains("known best, follows C<sup>α</sup> with α = −0.1") && answer.contains("Next: "),
        "{answer}"
    );
    report.headline = Some("imagenet-a-1/acc1".to_owned());
    let answer = super::answer::answer(&report);
    assert!(answer.contains("The error of <a href=\"#m1\">imagenet-a-1/acc1</a> follows"), "{answer}");
    report.metrics.clear();
    assert!(super::answer::answer(&report).contains("No job is done yet"));
}
