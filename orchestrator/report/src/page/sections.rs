//! What the page says, section by section. Each gives HTML, and says so where there is nothing to show.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fit::{Fit, Response, Verdict};

use super::analysis;
use super::html::{figure, table};
use super::{Drawn, Metric, Report, file_stem, provenance, tuned};
use crate::number::{compact, duration, scientific, significant, with_interval};
use crate::study::{Panel, StudyJob};
use crate::text::escape;

/// Everything between `<main>` and `</main>`.
pub(super) fn all(report: &Report, drawn: &Drawn) -> String {
    [
        opening(report),
        headline(report),
        scaling(report, drawn),
        analyses(report),
        curves(drawn),
        grid(drawn),
        jobs(report),
        tuned::tuned(report),
        cost(report),
        failures(report),
        provenance::provenance(report),
        provenance::sql(report),
    ]
    .concat()
}

fn opening(report: &Report) -> String {
    let study = &report.study;
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for job in &study.jobs {
        *states.entry(&job.state).or_default() += 1;
    }
    let done = states.remove("done").unwrap_or(0);
    let others: String = states.iter().fold(String::new(), |mut text, (state, count)| {
        let _ = write!(text, ", {count} {}", escape(state));
        text
    });
    let question = if study.question.trim().is_empty() {
        String::new()
    } else {
        format!("<p class=\"lead\">{}</p>\n", escape(&study.question))
    };
    format!(
        "<h1>{}</h1>\n{question}<p class=\"quiet\">{done} of {} jobs done{others}. Read from the database on {}.</p>\n",
        escape(&study.name),
        study.jobs.len(),
        study.read_at.format("%Y-%m-%d %H:%M:%S UTC")
    )
}

fn headline(report: &Report) -> String {
    if report.metrics.is_empty() {
        return "<h2>Laws</h2>\n<p>No job is done yet, so there is nothing to fit. What there is so far follows.</p>\n"
            .to_owned();
    }
    let items: String = report.panels().map(|panel| headline_of(report, panel)).collect();
    let rows: Vec<Vec<String>> = report.panels().flat_map(law_rows).collect();
    format!(
        "<h2>Laws</h2>\n<p>E = β·C<sup>α</sup> through {}; C in {} (<code>{}</code>); brackets hold \
         95 % intervals.</p>\n\
         <ul class=\"laws\">\n{items}</ul>\n\
         <p>How much the choice of points moves the answer: every job, the Pareto frontier at its true C, and the \
          rule of the 2022 \
         study (the best job in each of five bins of log C, placed at the bin's centre).</p>\n{}{}",
        through(report),
        escape(report.compute.unit()),
        report.compute,
        table(&["metric", "points", "verdict", "α", "β", "R²", "n", "E at 10 × the largest C"], 3, &rows),
        cautions(report)
    )
}

fn headline_of(report: &Report, panel: &Panel) -> String {
    let name = escape(&panel.name());
    let best = best(report, panel).map_or(String::new(), |text| format!("<br><span class=\"quiet\">{text}</span>"));
    match panel.main().map(|main| &main.fit) {
        Some(Ok(fit)) => {
            let class = match fit.verdict {
                Verdict::Scaling => "scaling",
                Verdict::NoScaling => "flat",
                _ => "doubt",
            };
            format!(
                "<li class=\"{class}\"><b>{name}</b><br><span class=\"law\">E = {} · C<sup>{}</sup></span>, α = {}, \
                 {}<br>{}{best}</li>\n",
                significant(fit.interval("beta").value, 3),
                minus(&significant(fit.interval("alpha").value, 3)),
                minus(&with_interval(&fit.interval("alpha"))),
                fit.r2.map_or("E does not vary".to_owned(), |r2| format!("R² = {r2:.2}")),
                meaning(fit)
            )
        }
        Some(Err(error)) => {
            format!("<li class=\"doubt\"><b>{name}</b><br>No law: {}.{best}</li>\n", escape(&error.to_string()))
        }
        None => format!("<li class=\"doubt\"><b>{name}</b><br>No law.{best}</li>\n"),
    }
}

/// What the laws of the headline go through.
fn through(report: &Report) -> String {
    match report.panels().next().and_then(Panel::main) {
        Some(main) if main.policy != "all" => format!("the points that <code>{}</code> chooses", escape(&main.policy)),
        _ => "all finished jobs".to_owned(),
    }
}

/// A fit in one sentence.
fn meaning(fit: &Fit) -> String {
    // What ten times the compute takes off the error, in percent.
    let cut = |alpha: f64| 100.0 * (1.0 - 10f64.powf(alpha));
    match fit.verdict {
        Verdict::Scaling => format!(
            "Scaling: ten times the compute takes {} % [{}, {}] off the error.",
            significant(cut(fit.interval("alpha").value), 2),
            significant(cut(fit.interval("alpha").high), 2),
            significant(cut(fit.interval("alpha").low), 2)
        ),
        Verdict::NoScaling => {
            let alpha = fit.interval("alpha");
            let why = if alpha.low <= 0.0 && 0.0 <= alpha.high {
                "the interval of α covers zero"
            } else {
                "what α makes of the error is rounding"
            };
            format!("No scaling: {why}.")
        }
        Verdict::WrongWay => "The error grows with compute.".to_owned(),
        Verdict::TooFewJobs => {
            format!("Not to be trusted: fewer than {} jobs.", fit::JOBS_MIN)
        }
        Verdict::AtChance => "Not to be trusted: no job is told apart from guessing.".to_owned(),
        Verdict::UnstableInterval => "Not to be trusted: too many resamples could not be fitted.".to_owned(),
        Verdict::NotConverged => "Not to be trusted: the minimiser stopped short.".to_owned(),
        Verdict::Fitted => "A minimum, and no other as deep.".to_owned(),
        Verdict::Bound => "The best is at a limit of the law.".to_owned(),
        Verdict::Flat => "Parameters are not told apart by the data; predictions among the data stand.".to_owned(),
        Verdict::TimeLimit => "Not to be trusted: the time limit cut the fit short.".to_owned(),
        Verdict::MultiModal => "Not to be trusted: different parameters do as well.".to_owned(),
    }
}

fn best(report: &Report, panel: &Panel) -> Option<String> {
    let response = panel.response();
    let best = report
        .study
        .measurements
        .iter()
        .filter(|m| m.dataset == panel.dataset && m.metric == panel.metric && m.value.is_finite())
        .min_by(|a, b| response.error_of(a.value).total_cmp(&response.error_of(b.value)))?;
    let job = report.study.jobs.iter().find(|job| job.job_key == best.job_key)?;
    let number = |value: f64| match response {
        Response::Fraction => format!("{} %", significant(100.0 * value, 3)),
        Response::Loss => format!("{} nats", significant(value, 3)),
    };
    let chance = best.chance.map_or(String::new(), |chance| format!(" (chance {})", number(chance)));
    Some(format!(
        "Best: {}{chance} by {} on {} samples of {} unique pairs.",
        number(best.value),
        escape(&job.model),
        whole(job.samples_seen),
        whole(job.data_size)
    ))
}

fn law_rows(panel: &Panel) -> Vec<Vec<String>> {
    panel
        .fits
        .iter()
        .enumerate()
        .map(|(number, one)| {
            let name = if number == 0 { escape(&panel.name()) } else { String::new() };
            if let Ok(fit) = &one.fit {
                vec![
                    name,
                    escape(&one.policy),
                    verdict(fit.verdict),
                    minus(&with_interval(&fit.interval("alpha"))),
                    minus(&with_interval(&fit.interval("beta"))),
                    fit.r2.map_or("n/a".to_owned(), |r2| format!("{r2:.2}")),
                    fit.points.len().to_string(),
                    fit.band.last().map_or(String::new(), |last| with_interval(&last.error)),
                ]
            } else {
                let mut row = vec![name, escape(&one.policy), "<span class=\"bad\">no fit</span>".to_owned()];
                row.resize(8, String::new());
                row
            }
        })
        .collect()
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
        "<details class=\"quiet\" open><summary>Before trusting these intervals</summary><ul>\n{}</ul></details>\n",
        lines.concat()
    )
}

fn scaling(report: &Report, drawn: &Drawn) -> String {
    let drawn: String = drawn.metrics.iter().filter_map(|metric| metric.scaling.as_ref()).map(figure).collect();
    let drawn =
        if drawn.is_empty() { "<p>Nothing has been measured on held-out data yet.</p>\n".to_owned() } else { drawn };
    format!(
        "<h2>Scaling</h2>\n<p>Error against compute in {}, both axes logarithmic, so that a power law is a straight \
         line.</p>\n{drawn}",
        escape(report.compute.unit())
    )
}

/// What the numbers of the laws rest on.
fn analyses(report: &Report) -> String {
    let drawn: String = report
        .metrics
        .iter()
        .filter_map(|Metric { panel, analysis }| {
            Some(analysis::html(analysis.as_ref()?, &panel.name(), &file_stem(panel)))
        })
        .collect();
    if drawn.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Analysis</h2>\n<p>What the laws rest on: how far the choice of points moves them, what they leave over, \
         how well their parameters are known, and what they would have forecast.</p>\n{drawn}"
    )
}

fn curves(drawn: &Drawn) -> String {
    match &drawn.curves {
        Some(drawn) => format!("<h2>Loss curves</h2>\n{}", figure(drawn)),
        None => "<h2>Loss curves</h2>\n<p>No job has reported a training loss yet.</p>\n".to_owned(),
    }
}

fn grid(drawn: &Drawn) -> String {
    let drawn: String = drawn.metrics.iter().filter_map(|metric| metric.grid.as_ref()).map(figure).collect();
    if drawn.is_empty() { String::new() } else { format!("<h2>The grid</h2>\n{drawn}") }
}

fn jobs(report: &Report) -> String {
    if report.study.jobs.is_empty() {
        return "<h2>Jobs</h2>\n<p>This sweep has no jobs.</p>\n".to_owned();
    }
    let metrics: Vec<String> = report.panels().map(Panel::name).collect();
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
        .map(|job| {
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
            row.push(job.train_loss.map_or(String::new(), |loss| significant(loss, 3)));
            row.extend(report.panels().map(|panel| measured(report, panel, job)));
            row
        })
        .collect();
    format!(
        "<h2>Jobs</h2>\n<p class=\"quiet\">N parameters; C in {}; accuracies and recalls in %, ± one standard error; \
         losses in nats.</p>\n{}{}",
        escape(report.compute.unit()),
        table(&head, 3, &rows),
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

fn measured(report: &Report, panel: &Panel, job: &StudyJob) -> String {
    let found = report
        .study
        .measurements
        .iter()
        .find(|m| m.job_key == job.job_key && m.dataset == panel.dataset && m.metric == panel.metric);
    let Some(found) = found else { return String::new() };
    match (panel.response(), found.standard_error) {
        (Response::Fraction, Some(error)) => format!("{:.1} ± {:.1}", 100.0 * found.value, 100.0 * error),
        (Response::Fraction, None) => format!("{:.1}", 100.0 * found.value),
        (Response::Loss, _) => significant(found.value, 3),
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
const DASH: &str = "–";

pub(super) fn whole(count: Option<i64>) -> String {
    count.map_or(DASH.to_owned(), |count| compact(count as f64))
}

/// First 12 characters of a key.
pub(super) fn short(key: &str) -> &str {
    key.get(..12).unwrap_or(key)
}

fn minus(text: &str) -> String {
    text.replace('-', "−")
}
