//! What the page says, section by section. Each gives HTML, and says so where there is nothing to show.

use std::fmt::Write as _;

use fit::{Response, Verdict};

use super::answer::{error_interval, law, link};
use super::html::{figure, job_table, table};
use super::metrics::{group_name, metrics};
use super::opening::opening;
use super::{Drawn, Report, provenance, tuned};
use crate::number::{compact, duration, scientific, shown, shown_interval, significant};
use crate::study::{Panel, StudyJob, StudyMeasurement};
use crate::text::escape;

/// Everything between `<main>` and `</main>`.
pub(super) fn all(report: &Report, drawn: &Drawn) -> String {
    [
        opening(report, drawn),
        metrics(report, drawn),
        laws(report),
        curves(drawn),
        jobs(report),
        tuned::tuned(report),
        cost(report),
        failures(report),
        provenance::provenance(report),
        provenance::sql(report),
    ]
    .concat()
}

/// Metrics up to which what is to be known before trusting their intervals lies open.
const CAUTIONED: usize = 6;

/// One row a metric: how much the choice of points moves the answer.
fn laws(report: &Report) -> String {
    let Some(policies) = report.panels().map(|panel| &panel.fits).max_by_key(|fits| fits.len()) else {
        return String::new();
    };
    let exponents: Vec<String> = policies.iter().map(|one| format!("α, {}", one.policy)).collect();
    // What is pushed out of a narrow screen is what is asked for last.
    let mut head = vec!["metric", "group", "verdict", "n", "R²"];
    head.extend(exponents.first().map(String::as_str));
    head.extend(["E at 10 × the largest C", "β"]);
    head.extend(exponents.iter().skip(1).map(String::as_str));
    let rows: Vec<Vec<String>> =
        report.panels().enumerate().map(|(place, panel)| law_row(place, panel, policies.len())).collect();
    let through = policies.first().map_or(String::new(), |one| {
        format!("Verdict, n, R², β and E are of the law through <code>{}</code>. ", escape(&one.policy))
    });
    format!(
        "<h2>Laws</h2>\n<p class=\"quiet\">How much the choice of points moves the answer: every job, the Pareto frontier \
         at its true C, and the rule of the 2022 study (the best job in each of five bins of log C, placed at the bin's \
         centre). {through}E is an error: in % for accuracies and recalls, in nats for losses.</p>\n<div class=\"laws\">\n{}</div>\n{}",
        table(&head, 3, &rows),
        cautions(report)
    )
}

fn law_row(place: usize, panel: &Panel, policies: usize) -> Vec<String> {
    let main = law(panel);
    let number = |value: Option<String>| value.unwrap_or_else(|| DASH.to_owned());
    let exponent = |number: usize| match panel.fits.get(number).map(|one| &one.fit) {
        Some(Ok(fit)) => shown_interval(&fit.interval("alpha")),
        _ => DASH.to_owned(),
    };
    let beyond = main.and_then(|fit| fit.band.last()).map(|last| error_interval(panel.response(), &last.error));
    let mut row = vec![
        link(place, panel),
        group_name(panel).to_owned(),
        main.map_or("<span class=\"bad\">no fit</span>".to_owned(), |fit| verdict(fit.verdict)),
        number(main.map(|fit| fit.points.len().to_string())),
        number(main.and_then(|fit| fit.r2).map(|r2| format!("{r2:.2}"))),
        exponent(0),
        number(beyond),
        number(main.map(|fit| shown_interval(&fit.interval("beta")))),
    ];
    row.extend((1..policies).map(exponent));
    row
}

fn verdict(verdict: Verdict) -> String {
    let class = if verdict.is_trustworthy() { "" } else { " class=\"bad\"" };
    format!("<span{class}>{verdict}</span>")
}

fn cautions(report: &Report) -> String {
    let mut lines = Vec::new();
    for panel in report.panels() {
        let mut of_panel: Vec<String> = Vec::new();
        for (number, one) in panel.fits.iter().enumerate() {
            let fit = match &one.fit {
                Ok(fit) => fit,
                Err(error) => {
                    of_panel.push(error.to_string());
                    continue;
                }
            };
            for caution in &fit.cautions {
                let general = matches!(caution, fit::Caution::NearChance { .. });
                let text = if general { caution.to_string() } else { format!("{}: {caution}", one.policy) };
                if !of_panel.contains(&text) {
                    of_panel.push(text);
                }
            }
            if number == 0 {
                of_panel
                    .extend(fit.excluded.iter().map(|e| format!("job {} left out: {}", short(&e.job_key), e.reason)));
            }
        }
        if !of_panel.is_empty() {
            lines.push(format!("<li>{}: {}.</li>\n", escape(&panel.name()), escape(&of_panel.join("; "))));
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    format!(
        "<details class=\"quiet\"{}><summary>Before trusting these intervals</summary><ul>\n{}</ul></details>\n",
        if report.metrics.len() > CAUTIONED { "" } else { " open" },
        lines.concat()
    )
}

fn curves(drawn: &Drawn) -> String {
    match &drawn.curves {
        Some(drawn) => format!("<h2>Loss curves</h2>\n{}", figure(drawn)),
        None => "<h2>Loss curves</h2>\n<p>No job has reported a training loss yet.</p>\n".to_owned(),
    }
}

/// Columns of the table of jobs that fit on paper, as in the style sheet.
const PRINTED_COLUMNS: usize = 14;

fn jobs(report: &Report) -> String {
    if report.study.jobs.is_empty() {
        return "<h2>Jobs</h2>\n<p>This sweep has no jobs.</p>\n".to_owned();
    }
    let metrics: Vec<String> = report.panels().map(Panel::name).collect();
    let values: Vec<Vec<String>> = report
        .panels()
        .map(|panel| {
            let mut values = vec![String::new(); report.study.jobs.len()];
            for (place, found) in report.study.measured(&panel.dataset, &panel.metric) {
                values[place] = value(panel.response(), found);
            }
            values
        })
        .collect();
    let seeds = report.study.jobs.iter().any(|job| job.seed != report.study.jobs[0].seed);
    let mut head = vec!["job", "state", "model", "N", "samples seen", "unique", "epochs"];
    if seeds {
        head.push("seed");
    }
    head.extend(["C", "train loss"]);
    head.extend(metrics.iter().map(String::as_str));
    let rows: Vec<Vec<String>> = report
        .study
        .jobs
        .iter()
        .enumerate()
        .map(|(place, job)| {
            let mut row = vec![
                format!("<code>{}</code>", escape(short(&job.job_key))),
                state(&job.state),
                escape(&job.model),
                whole(job.parameters),
                whole(job.samples_seen),
                whole(job.unique_samples),
                job.samples_seen
                    .zip(job.unique_samples)
                    .map_or(DASH.to_owned(), |(seen, unique)| significant(seen as f64 / unique as f64, 3)),
            ];
            if seeds {
                row.push(job.seed.to_string());
            }
            row.push(report.compute_of(job).map_or(DASH.to_owned(), scientific));
            row.push(job.train_loss.map_or(String::new(), shown));
            row.extend(values.iter().map(|values| values[place].clone()));
            row
        })
        .collect();
    let left_out = head.len().saturating_sub(PRINTED_COLUMNS);
    let on_paper = if left_out > 0 {
        format!(
            "<p class=\"quiet on-paper\">The last {left_out} metrics don't fit on paper; <code>sweep export</code> and the queries \
             below give them.</p>\n"
        )
    } else {
        String::new()
    };
    format!(
        "<h2>Jobs</h2>\n<p class=\"quiet\">N parameters; C in {}; accuracies and recalls in %, ± one standard error; \
         losses in nats.</p>\n{}<div class=\"jobs\">\n{}</div>\n{}",
        escape(report.compute.unit()),
        on_paper,
        job_table(&head, 3, &rows),
        spikes(report)
    )
}

/// Which jobs' losses spiked; empty: none of those that know.
fn spikes(report: &Report) -> String {
    let spiked: Vec<String> = report
        .study
        .jobs
        .iter()
        .filter(|job| job.spikes.is_some_and(|spikes| spikes > 0))
        .map(|job| {
            let back = job.rollbacks.filter(|&count| count > 0).map_or(String::new(), |count| {
                format!(" ({count} rollbacks, {} samples passed over)", whole(job.skipped_samples))
            });
            format!("{} in <code>{}</code>{back}", job.spikes.unwrap_or(0), escape(short(&job.job_key)))
        })
        .collect();
    if spiked.is_empty() { String::new() } else { format!("<p>Loss spikes: {}.</p>\n", spiked.join(", ")) }
}

fn state(state: &str) -> String {
    if state == "failed" { format!("<span class=\"bad\">{state}</span>") } else { escape(state) }
}

/// `72.1 ± 0.2`, in % for a fraction; a loss in nats.
pub(super) fn value(response: Response, found: &StudyMeasurement) -> String {
    match (response, found.standard_error) {
        (Response::Fraction, Some(error)) => {
            format!("{:.1} ± {:.1}", 100.0 * found.value, 100.0 * error)
        }
        (Response::Fraction, None) => format!("{:.1}", 100.0 * found.value),
        (Response::Loss, Some(error)) => {
            format!("{} ± {}", shown(found.value), significant(error, 2))
        }
        (Response::Loss, None) => shown(found.value),
    }
}

fn cost(report: &Report) -> String {
    let jobs = &report.study.jobs;
    let mut rows = Vec::new();
    let mut models: Vec<(&str, i64)> =
        jobs.iter().map(|job| (job.model.as_str(), job.parameters.unwrap_or(0))).collect();
    models.sort_unstable_by_key(|(name, parameters)| (*parameters, *name));
    models.dedup();
    let with_energy = jobs.iter().any(|job| job.gpu_joules.or(job.cpu_joules).is_some());
    let row = |name: String, of: &dyn Fn(&&StudyJob) -> bool| {
        let of: Vec<&StudyJob> = jobs.iter().filter(|job| job.attempts > 0).filter(of).collect();
        let sum = |value: &dyn Fn(&StudyJob) -> f64| of.iter().map(|job| value(job)).sum::<f64>();
        let done = |value: &dyn Fn(&StudyJob) -> f64| {
            of.iter().filter(|job| job.state == "done").map(|job| value(job)).sum::<f64>()
        };
        let train = sum(&|job| job.train_secs.unwrap_or(0.0));
        // What jobs share is trained once.
        let samples = done(&|job| (job.samples_seen.unwrap_or(0) - job.parent_samples) as f64);
        let own = |job: &StudyJob| {
            job.samples_seen.map_or(1.0, |samples| 1.0 - job.parent_samples as f64 / samples.max(1) as f64)
        };
        let mut row = vec![
            name,
            of.len().to_string(),
            of.iter().map(|job| job.attempts).sum::<i64>().to_string(),
            duration(train),
            known(&of, |job| job.data_wait_secs).map_or(DASH.to_owned(), duration),
            duration(sum(&|job| job.eval_secs.unwrap_or(0.0))),
            compact(samples),
            if train > 0.0 { compact(samples / train) } else { String::new() },
            scientific(done(&|job| own(job) * job.gmacs_samples.unwrap_or(0.0))),
            scientific(done(&|job| own(job) * job.train_flops.unwrap_or(0.0))),
        ];
        if with_energy {
            let joules = |value: &dyn Fn(&StudyJob) -> Option<f64>| {
                let sum = of.iter().map(|job| value(job)).sum::<Option<f64>>();
                sum.map_or(DASH.to_owned(), |sum| format!("{} kJ", significant(sum / 1e3, 3)))
            };
            row.extend([joules(&|job| job.gpu_joules), joules(&|job| job.cpu_joules)]);
        }
        row
    };
    for (model, _) in &models {
        rows.push(row(escape(model), &|job| job.model == *model));
    }
    rows.push(row("<b>total</b>".to_owned(), &|_| true));
    let mut devices: Vec<&str> = jobs.iter().filter_map(|job| job.device.as_deref()).collect();
    devices.sort_unstable();
    devices.dedup();
    let on = if devices.is_empty() { String::new() } else { format!(" Ran on: {}.", escape(&devices.join("; "))) };
    let mut head = vec![
        "model",
        "jobs",
        "attempts",
        "training",
        "of it waiting for data",
        "evaluation",
        "samples seen",
        "samples/s",
        "GMACs × samples",
        "training FLOPs",
    ];
    let mut energy = "";
    if with_energy {
        head.extend(["energy of GPUs", "energy of CPUs"]);
        energy = " Energy is of all attempts, that of GPUs with whatever else ran on them, that of CPUs by the jobs' share of their machines; a dash: it could not be \
                  read for all of them.";
    }
    format!(
        "<h2>Cost</h2>\n<p class=\"quiet\">Seconds are of all attempts, retries included; samples and compute of \
         finished jobs.{energy}{on}</p>\n{}",
        table(&head, 1, &rows)
    )
}

/// Sum over the jobs that know; `None`: none does.
fn known(jobs: &[&StudyJob], value: impl Fn(&StudyJob) -> Option<f64>) -> Option<f64> {
    jobs.iter().filter_map(|job| value(job)).reduce(|sum, value| sum + value)
}

fn failures(report: &Report) -> String {
    let failed: Vec<&StudyJob> =
        report.study.jobs.iter().filter(|job| job.state == "failed" || job.state == "cancelled").collect();
    if failed.is_empty() {
        return "<h2>Failed jobs</h2>\n<p>None.</p>\n".to_owned();
    }
    let mut text = "<h2>Failed jobs</h2>\n".to_owned();
    for job in failed {
        let tail = job.stderr_tail.as_deref().map(str::trim).filter(|tail| !tail.is_empty());
        let tail = tail.map_or(String::new(), |tail| format!("<pre>{}</pre>\n", escape(tail)));
        let _ = write!(
            text,
            "<p><code>{}</code> {}, {} samples of {}: <span class=\"bad\">{}</span>, {}</p>\n{tail}",
            escape(short(&job.job_key)),
            escape(&job.model),
            whole(job.samples_seen),
            whole(job.data_size),
            escape(&job.state),
            escape(job.reason.as_deref().unwrap_or("no reason stored"))
        );
    }
    text
}

/// What a source does not say.
pub(super) const DASH: &str = "–";

pub(super) fn whole(count: Option<i64>) -> String {
    count.map_or(DASH.to_owned(), |count| compact(count as f64))
}

/// First 12 characters of a key.
pub(super) fn short(key: &str) -> &str {
    key.get(..12).unwrap_or(key)
}
