//! Two sweeps side by side: their laws over one range, and where they cross.

use super::law::{abscissa, along, limits};
use super::subject::{BEYOND, axis_title, range};
use super::words::{self, interval, minus};
use super::{Drawing, Material, Subject, Table, Undrawable};
use crate::figures::comparison::{self as figure, ComparisonFigure, ComparisonPanel, Family};
use crate::figures::data::Law;
use crate::number::{scientific, significant};
use fit::compare::{CompareOptions, Comparison, compare};
use fit::cost::Cost;
use fit::frontier::Limits;
use fit::{Axis, Fit, JOBS_MIN, Observation};

/// The figure of one metric.
pub fn draw(of: Material<'_>) -> Result<Drawing, Undrawable> {
    let (panel, words, table) = panel(of, of.subject.name.as_str())?;
    let picture = figure::draw(&ComparisonFigure {
        title: title(of),
        x: axis_title(abscissa(of.fit), of.fit.compute),
        panels: vec![panel],
    })?;
    Ok(Drawing { picture, words, table: Some(table) })
}

/// The figure of several metrics, a panel each.
pub fn draw_several(all: &[Material<'_>]) -> Result<Drawing, Undrawable> {
    let Some(first) = all.first() else {
        return Err(Undrawable::lacks("no metric is compared", "name one with --metric"));
    };
    let (mut panels, mut said) = (Vec::new(), Vec::new());
    for &of in all {
        let (panel, words, _) = panel(of, of.subject.name.as_str())?;
        panels.push(panel);
        said.extend(words.into_iter().map(|words| format!("{}: {words}", of.subject.name)));
    }
    let picture = figure::draw(&ComparisonFigure {
        title: title(*first),
        x: axis_title(abscissa(first.fit), first.fit.compute),
        panels,
    })?;
    Ok(Drawing { picture, words: said, table: None })
}

fn title(of: Material<'_>) -> String {
    of.against.map_or(String::new(), |other| format!("{} and {}", of.subject.sweep, other.name))
}

fn panel(of: Material<'_>, metric: &str) -> Result<(ComparisonPanel, Vec<String>, Table), Undrawable> {
    let Some(other) = of.against else {
        return Err(Undrawable::lacks("no other sweep is named", "name it: --against SWEEP"));
    };
    let axis = abscissa(of.fit);
    let all = of.fit.observations.iter().chain(&other.fit.observations);
    let Some((low, high)) = range(all.map(|row| row.on(axis))) else {
        return Err(Undrawable::lacks(
            format!("no row says its {}", axis.describe()),
            "choose a convention that the rows have with --compute",
        ));
    };
    let priced = priced(of.fit, &of.fit.observations)?;
    let at: Vec<f64> = if axis == Axis::C { vec![low, (low * high).sqrt(), high] } else { Vec::new() };
    let mut options = CompareOptions::new(at);
    options.along = priced.as_ref().map(|(cost, limits)| (cost, *limits));
    options.seed = of.options.seed;
    let compared = if axis == Axis::C { Some(compare(of.fit, &other.fit, &options)?) } else { None };
    let family = |name: &str, subject: &Subject, fit: &Fit, held_out: &[Observation]| -> Result<Family, Undrawable> {
        let mut curve = along(fit, axis, (low * 0.8, high * BEYOND))?;
        if fit.jobs < JOBS_MIN {
            curve = curve.without_band();
        }
        let fitted_to = fit.observations.iter().map(|row| row.on(axis)).fold(0.0, f64::max);
        let law = Law {
            name: name.to_owned(),
            formula: words::formula(fit),
            interval: words::intervals(fit),
            curve,
            fitted_to,
        };
        Ok(Family { law, points: subject.points(fit, held_out, axis) })
    };
    let families = vec![
        family(of.subject.sweep.as_str(), of.subject, of.fit, of.held_out)?,
        family(&other.name, &other.subject, &other.fit, &[])?,
    ];
    let crossover = compared.as_ref().and_then(|compared| compared.crossover.compute);
    let y = format!("{metric}: {}", of.subject.error);
    let y = if metric == of.subject.name { of.subject.ordinate() } else { y };
    let words = compared.as_ref().map_or(Vec::new(), |compared| words_of(of, &other.name, compared));
    let table =
        compared.as_ref().map_or_else(empty, |compared| table(of.subject.sweep.as_str(), &other.name, compared));
    Ok((ComparisonPanel { y, families, crossover }, words, table))
}

fn priced(fit: &Fit, rows: &[Observation]) -> Result<Option<(Cost, Limits)>, Undrawable> {
    if fit.form().axes() == [Axis::C] || abscissa(fit) != Axis::C {
        return Ok(None);
    }
    Ok(Some((Cost::compute(rows)?, limits(fit, rows))))
}

fn words_of(of: Material<'_>, other: &str, compared: &Comparison) -> Vec<String> {
    let ours = of.subject.sweep.as_str();
    let named = |text: String| {
        let text = text.replace("A is ", &format!("{ours} is ")).replace("B is ", &format!("{other} is "));
        text.replace(", A above", &format!(", {ours} above")).replace(", B above", &format!(", {other} above"))
    };
    let mut words = vec![named(compared.crossover.to_string()) + "."];
    if let Some(shared) = &compared.shared_exponent {
        words.push(format!("That both have the same exponent has p = {} (F test).", significant(shared.p, 2)));
    }
    words.extend(compared.cautions.iter().map(|caution| {
        let text = caution.to_string();
        let text = match (text.strip_prefix("A "), text.strip_prefix("B ")) {
            (Some(rest), _) => format!("{ours} {rest}"),
            (_, Some(rest)) => format!("{other} {rest}"),
            _ => text,
        };
        text + "."
    }));
    words
}

fn empty() -> Table {
    Table { head: Vec::new(), numbers_from: 0, rows: Vec::new() }
}

fn table(a: &str, b: &str, compared: &Comparison) -> Table {
    let mut rows: Vec<Vec<String>> = compared
        .differences
        .iter()
        .map(|one| {
            vec![
                words::symbol(&one.name).to_owned(),
                minus(&significant(one.a, 3)),
                minus(&significant(one.b, 3)),
                interval(&one.difference),
            ]
        })
        .collect();
    for versus in &compared.at {
        rows.push(vec![
            format!("at C = {}: error of {a} over {b}", scientific(versus.compute)),
            String::new(),
            String::new(),
            interval(&versus.ratio),
        ]);
    }
    Table {
        head: vec!["number".to_owned(), a.to_owned(), b.to_owned(), "difference, or ratio".to_owned()],
        numbers_from: 1,
        rows,
    }
}
