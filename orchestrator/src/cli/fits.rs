//! The last node of a sweep: the laws that its spec names (`fits`), fitted when all of its results are there.
//!
//! What is stored is what `sweep fit` stores, and is known by its input: the same again is the same row. So whoever is
//! killed on the way leaves nothing half done, and the next launch, with nothing to train, fits what is missing.

use serde::Serialize;

use super::analysis::{Rows, fit_and_store, load, with_numbers};
use super::output::{Failure, say};
use crate::fit::{Interval, LawName, Method, Options, Response, Verdict};
use crate::plan::Plan;
use crate::report::number::with_interval;
use crate::spec::{self, FitAsked, Source};
use crate::store::Store;
use crate::store::fit::StoredFit;

/// One law, in `sweep launch --json`.
#[derive(Debug, Serialize)]
pub(super) struct Refit {
    metric: String,
    law: LawName,
    #[serde(flatten)]
    stored: Option<StoredFit>,
    verdict: Option<Verdict>,
    parameters: Vec<Parameter>,
    /// Why there is no fit.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Parameter {
    name: &'static str,
    /// Value and 95 % interval.
    interval: Interval,
}

fn asked(plan: &Plan) -> Result<Vec<FitAsked>, Failure> {
    let parsed = spec::parse(&Source::new(&plan.name, &plan.spec_source));
    Ok(parsed.map_err(|error| Failure::bad_input(super::plan::rendered(&error)))?.fits)
}

/// Says that laws wait for jobs that have ended without a result, if the spec names any.
pub(super) fn say_waiting(plan: &Plan) -> Result<(), Failure> {
    if !asked(plan)?.is_empty() {
        say(
            "\nhint: the laws of `fits` wait for the jobs that failed or were cancelled: `sweep retry` gives them another \
             go, `sweep fit` fits what is there",
        );
    }
    Ok(())
}

/// Fits the laws of a plan's spec, says a line of each, and what can't be fitted.
pub(super) async fn refit(plan: &Plan) -> Result<Vec<Refit>, Failure> {
    let asked = asked(plan)?;
    let mut refits = Vec::new();
    if asked.is_empty() {
        return Ok(refits);
    }
    let store = Store::connect().await?;
    for asked in asked {
        refits.push(one(&store, &plan.name, asked).await);
    }
    Ok(refits)
}

async fn one(store: &Store, sweep: &str, asked: FitAsked) -> Refit {
    let (metric, law) = (asked.metric.clone(), asked.law);
    match fitted(store, sweep, asked).await {
        Ok(refit) => refit,
        Err(failure) => {
            say(&format!("fit {metric} ({law}): none: {}", failure.message()));
            let error = Some(failure.message().to_owned());
            Refit { metric, law, stored: None, verdict: None, parameters: Vec::new(), error }
        }
    }
}

async fn fitted(store: &Store, sweep: &str, asked: FitAsked) -> Result<Refit, Failure> {
    let rows = Rows {
        metric: Some(asked.metric.clone()),
        condition: asked.condition,
        compute: asked.compute,
        checkpoints: asked.checkpoints,
        proxy: asked.proxy,
    };
    let loaded = load(store, sweep, &rows).await?;
    let options = Options {
        law: asked.law,
        points: asked.points,
        objective: asked.objective,
        resamples: asked.resamples,
        seed: asked.seed,
        method: Method::default(),
        ..Options::new(Response::of_metric(&loaded.metric.metric))
    };
    let (fit, stored) = fit_and_store(store, &loaded, &options).await?;
    let free = fit.parameters.iter().filter(|parameter| !parameter.frozen);
    let parameters: Vec<Parameter> =
        free.map(|parameter| Parameter { name: parameter.name, interval: parameter.interval }).collect();
    let told: Vec<String> = parameters
        .iter()
        .map(|parameter| format!("{} {}", parameter.name, with_interval(&parameter.interval)))
        .collect();
    let again = if stored.is_new { "" } else { ", as before" };
    say(&format!(
        "fit {}: {}, {}: {}; fit {}{again}",
        asked.metric,
        with_numbers(&fit),
        told.join(", "),
        fit.verdict,
        stored.fit_id
    ));
    let (verdict, stored) = (Some(fit.verdict), Some(stored));
    Ok(Refit { metric: asked.metric, law: asked.law, stored, verdict, parameters, error: None })
}
