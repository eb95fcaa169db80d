//! Profile likelihood of a law's parameters.

use super::words::{interval, minus, symbol};
use super::{Drawing, Material, Table, Undrawable};
use crate::figures::profile::{self, Profile, ProfileFigure};
use fit::law::Scale;
use fit::{Identified, Intervals, Stated};

/// The figure, and both kinds of interval side by side.
pub fn draw(of: Material<'_>) -> Result<Drawing, Undrawable> {
    let (fit, form) = (of.fit, of.fit.form());
    let stated = fit.intervals(Intervals::Profile, of.options);
    let shown = |(stated, parameter): (&Stated, &fit::law::Parameter)| {
        let profile = stated.profile.as_ref()?;
        Some(Profile {
            name: symbol(stated.name).to_owned(),
            log: parameter.scale == Scale::Log,
            values: profile.curve.iter().map(|(value, _)| *value).collect(),
            deviance: profile.curve.iter().map(|(_, deviance)| *deviance).collect(),
            interval: stated.interval,
            identified: stated.identified == Some(Identified::Both),
        })
    };
    let parameters: Vec<Profile> = stated.iter().zip(form.parameters()).filter_map(shown).collect();
    let threshold = stated.iter().find_map(|stated| Some(stated.profile.as_ref()?.threshold));
    let Some(threshold) = threshold.filter(|_| !parameters.is_empty()) else {
        return Err(Undrawable::lacks("every parameter is held", "leave one free: fewer --fix"));
    };
    let title = format!("{}: profiles of {}", of.subject.name, form.formula());
    let picture = profile::draw(&ProfileFigure { title, threshold, parameters })?;
    let rows = stated
        .iter()
        .zip(&fit.parameters)
        .filter(|(stated, _)| !stated.frozen)
        .map(|(stated, estimate)| {
            vec![symbol(stated.name).to_owned(), interval(&estimate.interval), interval(&stated.interval)]
        })
        .collect();
    Ok(Drawing {
        picture,
        words: stated.iter().filter_map(|stated| stated.words.as_deref().map(|words| minus(words) + ".")).collect(),
        table: Some(Table {
            head: ["parameter", "bootstrap", "profile likelihood"].map(str::to_owned).to_vec(),
            numbers_from: 1,
            rows,
        }),
    })
}
