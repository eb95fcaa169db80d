//! Every metric as a small multiple that opens its large figure and its analysis. Choices (order, group, choice of
//! points) are radio buttons that the style sheet obeys, so they work without scripts.

use std::fmt::Write as _;

use fit::{Fit, LawName, Response, Verdict};

use super::answer::{law, meaning};
use super::html::figure;
use super::{Drawn, DrawnMetric, Metric, Report, analysis, file_stem};
use crate::number::{compact, shown, shown_interval, significant};
use crate::study::{Panel, PanelFit};
use crate::text::escape;

/// Kinds of metrics: class in the style sheet, and name. The order in which they are shown.
const GROUPS: [(&str, &str); 4] =
    [("vtab", "VTAB"), ("robustness", "robustness"), ("retrieval", "retrieval"), ("other", "other")];
/// Test sets that ask how ImageNet's classes are recognised elsewhere.
const SHIFTED: [&str; 8] = [
    "imagenet_robustness",
    "imagenetv2",
    "imagenet-a",
    "imagenet-r",
    "imagenet-o",
    "imagenet_sketch",
    "imagenet-sketch",
    "objectnet",
];
/// Metrics up to which a print holds what tiles hold; of more it would be a book, and what is open is printed.
const PRINTED_MAX: usize = 6;
/// Orders: key of the radio button, and name.
const ORDERS: [(&str, &str); 4] = [("group", "group"), ("alpha", "exponent"), ("r2", "R²"), ("name", "name")];

/// Place in [`GROUPS`].
pub(super) fn group(panel: &Panel) -> usize {
    let dataset = panel.dataset.to_lowercase();
    if panel.metric.contains("retrieval") {
        2
    } else if dataset.starts_with("vtab") {
        0
    } else if SHIFTED.iter().any(|name| dataset == *name || dataset.starts_with(&format!("{name}-"))) {
        1
    } else {
        3
    }
}

pub(super) fn group_name(panel: &Panel) -> &'static str {
    GROUPS[group(panel)].1
}

pub(super) fn metrics(report: &Report, drawn: &Drawn) -> String {
    if report.metrics.is_empty() {
        return String::new();
    }
    let ranks = ranks(report);
    // Without scripts this is the order of the tab key too.
    let mut order: Vec<usize> = (0..report.metrics.len()).collect();
    order.sort_by_key(|place| ranks[*place][0]);
    let tiles: String = order
        .into_iter()
        .map(|place| tile(report, &report.metrics[place], &drawn.metrics[place], (place, ranks[place])))
        .collect();
    format!(
        "<section id=\"metrics\">\n<h2>Metrics</h2>\n<p>E = β·C<sup>α</sup>, the error against compute C in {} \
         (<code>{}</code>), both axes logarithmic, so that a power law is a straight line; brackets and bands hold 95 % \
         intervals. Open one for its large figure and what its law rests on.{}</p>\n{}<div class=\"tiles{}\">\n{tiles}</div>\n</section>\n",
        escape(report.compute.unit()),
        report.compute,
        of_others(report),
        controls(report),
        if report.metrics.len() <= PRINTED_MAX { " few" } else { "" }
    )
}

/// What is to be known of the other laws, where there are any.
fn of_others(report: &Report) -> String {
    let others = report.panels().flat_map(|panel| &panel.fits).flat_map(|one| &one.others);
    let resamples = others.filter_map(|other| Some(other.fit.as_ref().ok()?.resamples_asked)).max();
    resamples.map_or(String::new(), |resamples| {
        format!(" Large figures show other laws too, with bands of {resamples} resamples.")
    })
}

fn controls(report: &Report) -> String {
    let radios = |name: &str, title: &str, choices: &[(String, String)]| {
        let choices: String = choices.iter().enumerate().fold(String::new(), |mut html, (number, (id, words))| {
            let checked = if number == 0 { " checked" } else { "" };
            let _ = write!(
                html,
                "<input type=\"radio\" name=\"{name}\" id=\"{name}-{id}\" value=\"{id}\"{checked}><label for=\"{name}-{id}\">{}</label>",
                escape(words)
            );
            html
        });
        format!("<fieldset><legend>{title}</legend>{choices}</fieldset>\n")
    };
    let mut html = String::new();
    let policies = report.panels().map(|panel| &panel.fits).max_by_key(|fits| fits.len());
    if let Some(policies) = policies.filter(|policies| policies.len() > 1) {
        let choices: Vec<_> = policies
            .iter()
            .enumerate()
            .map(|(number, one)| (number.to_string(), points_in_words(&one.policy)))
            .collect();
        html.push_str(&radios("points", "Law through", &choices));
    }
    let others = report.panels().flat_map(|panel| &panel.fits).map(|one| &one.others).max_by_key(|others| others.len());
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        let names = std::iter::once("power law".to_owned()).chain(others.iter().map(|other| law_in_words(other.law)));
        let choices: Vec<_> = names.enumerate().map(|(number, name)| (number.to_string(), name)).collect();
        html.push_str(&radios("law", "Large figures by", &choices));
    }
    if report.metrics.len() > 2 {
        html.push_str(&radios("order", "Order by", &ORDERS.map(|(id, words)| (id.to_owned(), words.to_owned()))));
    }
    let mut found: Vec<usize> = report.panels().map(group).collect();
    found.sort_unstable();
    found.dedup();
    if found.len() > 1 {
        let all = std::iter::once(("all".to_owned(), "all".to_owned()));
        let groups = found.into_iter().map(|group| (GROUPS[group].0.to_owned(), GROUPS[group].1.to_owned()));
        html.push_str(&radios("group", "Show", &all.chain(groups).collect::<Vec<_>>()));
    }
    format!("<div class=\"controls\">\n{html}</div>\n")
}

fn law_in_words(law: LawName) -> String {
    match law {
        LawName::Saturating(_) => "with an offset".to_owned(),
        LawName::Shifted(_) => "late, with an offset".to_owned(),
        LawName::Chinchilla => "of N and D, the best at each C".to_owned(),
        other => other.to_string(),
    }
}

fn points_in_words(policy: &str) -> String {
    match policy {
        "all" => "all jobs".to_owned(),
        "pareto" => "Pareto frontier".to_owned(),
        "hull" => "hull".to_owned(),
        "last" => "last of each".to_owned(),
        other => match other.strip_prefix("bins:") {
            Some(count) => format!("best of {count} bins"),
            None => other.to_owned(),
        },
    }
}

/// Place of each metric in each of [`ORDERS`].
fn ranks(report: &Report) -> Vec<[usize; 4]> {
    let panels: Vec<&Panel> = report.panels().collect();
    let of = |panel: &Panel, value: fn(&Fit) -> Option<f64>| {
        law(panel).and_then(value).filter(|value| value.is_finite()).unwrap_or(f64::INFINITY)
    };
    let alpha = |panel: &Panel| of(panel, |fit| fit.parameter("alpha").map(|alpha| alpha.value));
    let r2 = |panel: &Panel| of(panel, |fit| fit.r2.map(|r2| -r2));
    let name = |panel: &Panel| panel.name().to_lowercase();
    let ranked = |compare: &dyn Fn(&Panel, &Panel) -> std::cmp::Ordering| {
        let mut places: Vec<usize> = (0..panels.len()).collect();
        places.sort_by(|a, b| compare(panels[*a], panels[*b]));
        places
    };
    let orders = [
        ranked(&|a, b| group(a).cmp(&group(b)).then_with(|| name(a).cmp(&name(b)))),
        ranked(&|a, b| alpha(a).total_cmp(&alpha(b))),
        ranked(&|a, b| r2(a).total_cmp(&r2(b))),
        ranked(&|a, b| name(a).cmp(&name(b))),
    ];
    let mut ranks = vec![[0; 4]; panels.len()];
    for (order, places) in orders.iter().enumerate() {
        for (rank, place) in places.iter().enumerate() {
            ranks[*place][order] = rank;
        }
    }
    ranks
}

fn tile(report: &Report, metric: &Metric, drawn: &DrawnMetric, (place, ranks): (usize, [usize; 4])) -> String {
    let Metric { panel, analysis } = metric;
    let class = match law(panel).map(|fit| fit.verdict) {
        Some(Verdict::Scaling) => "scaling",
        Some(Verdict::NoScaling) => "flat",
        _ => "doubt",
    };
    let spark = drawn.spark.as_ref().map_or("<span class=\"none\">not measured yet</span>".to_owned(), |picture| {
        picture.in_page().trim_end().to_owned()
    });
    let [by_group, by_alpha, by_r2, by_name] = ranks;
    let words: String = panel.fits.iter().enumerate().map(|(number, one)| layer(number, &in_brief(one))).collect();
    let more = analysis
        .as_ref()
        .map_or(String::new(), |analysis| analysis::html(analysis, "What the law rests on", &file_stem(panel)));
    let figures: String = drawn.scaling.iter().chain(&drawn.grid).map(figure).collect();
    format!(
        "<details class=\"tile {class} g-{}\" id=\"m{place}\" data-m=\"{place}\" \
         style=\"--group:{by_group};--alpha:{by_alpha};--r2:{by_r2};--name:{by_name}\">\n<summary>{spark}<h3>{} \
         <span>{}</span></h3>{words}</summary>\n<div class=\"large\">\n{}{figures}{more}</div>\n</details>\n",
        GROUPS[group(panel)].0,
        breakable(&panel.dataset),
        breakable(&panel.metric),
        in_full(report, panel)
    )
}

/// Escaped, and with places where a line may end.
fn breakable(name: &str) -> String {
    escape(name).replace('/', "/<wbr>").replace('_', "_<wbr>").replace('@', "<wbr>@")
}

/// What belongs to one choice of points; the first is shown, and the style sheet chooses.
fn layer(number: usize, html: &str) -> String {
    let hidden = if number == 0 { "" } else { " hidden" };
    format!("<span class=\"p p{number}\"{hidden}>{html}</span>")
}

fn in_brief(one: &PanelFit) -> String {
    let Ok(fit) = &one.fit else {
        return "<i>no law</i>".to_owned();
    };
    let r2 = fit.r2.map_or(String::new(), |r2| format!("R² {r2:.2} · "));
    let verdict = fit.verdict.to_string();
    format!("α {}<br><i>{r2}{}</i>", shown_interval(&fit.interval("alpha")), escape(&verdict))
}

/// The laws in sentences, and the best job.
fn in_full(report: &Report, panel: &Panel) -> String {
    let laws: String = panel.fits.iter().enumerate().map(|(number, one)| layer(number, &in_sentences(one))).collect();
    let best = best(report, panel).map_or(String::new(), |text| format!("<br><span class=\"quiet\">{text}</span>"));
    let has_others = panel.fits.iter().any(|one| !one.others.is_empty());
    let by = if has_others { "<span class=\"quiet\">Power law</span> " } else { "" };
    format!("<p>{by}{laws}{best}</p>\n")
}

fn in_sentences(one: &PanelFit) -> String {
    match &one.fit {
        Ok(fit) => format!(
            "<span class=\"law\">E = {} · C<sup>{}</sup></span>, α = {}, {}. {}",
            shown(fit.interval("beta").value),
            shown(fit.interval("alpha").value),
            shown_interval(&fit.interval("alpha")),
            fit.r2.map_or("E does not vary".to_owned(), |r2| format!("R² = {r2:.2}")),
            meaning(fit)
        ),
        Err(error) => format!("No law: {}.", escape(&error.to_string())),
    }
}

fn best(report: &Report, panel: &Panel) -> Option<String> {
    let response = panel.response();
    let measured = report.study.measured(&panel.dataset, &panel.metric);
    let (place, best) = measured
        .into_iter()
        .filter(|(_, m)| m.value.is_finite())
        .min_by(|(_, a), (_, b)| response.error_of(a.value).total_cmp(&response.error_of(b.value)))?;
    let job = &report.study.jobs[place];
    let number = |value: f64| match response {
        Response::Fraction => format!("{} %", significant(100.0 * value, 3)),
        Response::Loss => format!("{} nats", significant(value, 3)),
    };
    let count = |count: Option<i64>| count.map_or("–".to_owned(), |count| compact(count as f64));
    let chance = best.chance.map_or(String::new(), |chance| format!(" (chance {})", number(chance)));
    Some(format!(
        "Best: {}{chance} by {} on {} samples of {} unique pairs.",
        number(best.value),
        escape(&job.model),
        count(job.samples_seen),
        count(job.data_size)
    ))
}
