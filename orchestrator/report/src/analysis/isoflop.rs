//! IsoFLOP curves: error against N at equal compute, off the surface and off parabolas.

use super::frontier::needs_n_and_d;
use super::law::limits;
use super::subject::{range, steps};
use super::words::minus;
use super::{Drawing, Material, Undrawable};
use crate::figures::data::{Curve, Law};
use crate::figures::isoflop::{self as figure, Isoflop, IsoflopFigure};
use crate::number::{significant, superscript};
use fit::Observation;
use fit::cost::Cost;
use fit::frontier::Path;
use fit::isoflop::{Budget, Exponent, IsoFlop, Setting, isoflop_of};

/// Budgets that are drawn: more can't be told apart.
const BUDGETS_MOST: usize = 8;
/// Sizes of model below which a budget shows nothing.
const SIZES_LEAST: usize = 3;
const STEPS: usize = 61;
/// How far beyond the grid curves are drawn, as a factor of N.
const MARGIN: f64 = 3.0;

/// The figure, and what is wrong with each budget.
pub fn draw(of: Material<'_>) -> Result<Drawing, Undrawable> {
    let fit = of.fit;
    needs_n_and_d(fit, "an IsoFLOP analysis")?;
    let cost = Cost::compute(&fit.observations)?;
    let setting = Setting { limits: limits(fit, &fit.observations), ..Setting::new(&cost) };
    let found = isoflop_of(fit, setting);
    let budgets: Vec<&Budget> = found.budgets.iter().filter(|budget| budget.sizes >= SIZES_LEAST).collect();
    if budgets.is_empty() {
        return Err(Undrawable::lacks(
            "no three sizes of model were run at the same compute (within 10 %)",
            "plan some: `sweep advise`; the frontier needs none: `sweep plot SWEEP frontier`",
        ));
    }
    let every = budgets.len().div_ceil(BUDGETS_MOST).max(1);
    let shown: Vec<Isoflop> =
        budgets.iter().step_by(every).map(|budget| one(of, &cost, setting, budget)).collect::<Result<_, _>>()?;
    let range = (budgets[0].compute, budgets[budgets.len() - 1].compute * 10.0);
    let picture = figure::draw(&IsoflopFigure {
        title: format!("{}: IsoFLOP curves by {}", of.subject.name, fit.law),
        y: of.subject.error.clone(),
        compute: format!("C, {}", fit.compute.unit()),
        budgets: shown,
        surface: found.surface.map_or_else(
            || Law { curve: Curve::none(), ..line("surface", None, range) },
            |exponent| line(&format!("surface, {}", fit.law), Some(exponent), range),
        ),
        parabola: found.parabola.map(|exponent| line("parabola", Some(exponent), range)),
    })?;
    Ok(Drawing { picture, words: words(&found), table: None })
}

fn line(name: &str, exponent: Option<Exponent>, (low, high): (f64, f64)) -> Law {
    let curve = exponent.map_or_else(Curve::none, |exponent| {
        let x = steps((low, high), 2);
        let y = x.iter().map(|c| (exponent.level + exponent.a * c.ln()).exp()).collect();
        Curve { x, y, low: Vec::new(), high: Vec::new() }
    });
    let formula = exponent.map_or_else(
        || "no optimum within a grid".to_owned(),
        |exponent| {
            let factor = minus(&significant(exponent.level.exp(), 3));
            format!("N = {factor} · C{}", superscript(&significant(exponent.a, 3)))
        },
    );
    let interval = exponent.map_or(String::new(), |exponent| format!("from {} budgets", exponent.budgets));
    Law { name: name.to_owned(), formula, interval, curve, fitted_to: high / 10.0 }
}

/// Rows of one budget with its curves.
fn one(of: Material<'_>, cost: &Cost, setting: Setting<'_>, budget: &Budget) -> Result<Isoflop, Undrawable> {
    let fit = of.fit;
    let near = |row: &&Observation| (row.compute / budget.compute).ln().abs() <= setting.tolerance;
    let rows: Vec<&Observation> = fit.observations.iter().filter(near).collect();
    let Some((least, most)) = range(rows.iter().map(|row| row.parameters)) else {
        return Err(Undrawable::lacks("no row says its parameters", "fit a law of compute: --law power"));
    };
    let form = fit.form();
    let path = Path::new(form.as_ref(), cost, budget.compute, setting.limits, (least, most));
    let theta = &fit.solution.best.theta;
    let x = steps((least / MARGIN, most * MARGIN), STEPS);
    let surface = x.iter().map(|n| form.ln_at(theta, &path.at(n.ln())).exp()).collect();
    Ok(Isoflop {
        compute: budget.compute,
        parameters: rows.iter().map(|row| row.parameters).collect(),
        errors: rows.iter().map(|row| row.error).collect(),
        jobs: rows.iter().map(|row| of.subject.place(row)).collect(),
        surface: Curve { x, y: surface, low: Vec::new(), high: Vec::new() },
        surface_optimum: budget.surface.map(|best| (best.parameters, best.error)),
        parabola: parabola(budget, &rows, (least, most)),
        parabola_optimum: budget.parabola.map(|best| (best.parameters, best.error)),
        flags: budget.flags.iter().map(ToString::to_string).collect(),
    })
}

/// The parabola of ln E over ln N with the vertex that the engine found. Least squares leaves residuals that are
/// orthogonal to every parabola, so its curvature is `sum (ln E - m) z^2 / sum z^4`, z the distance to the vertex, m
/// its height.
fn parabola(budget: &Budget, rows: &[&Observation], (least, most): (f64, f64)) -> Curve {
    let Some(vertex) = budget.parabola else {
        return Curve::none();
    };
    let squared = |n: f64| (n / vertex.parameters).ln().powi(2);
    let (mut above, mut wide) = (0.0, 0.0);
    for row in rows {
        // The engine takes replicates at their mean: each counts for its share.
        let alike = rows.iter().filter(|other| (other.parameters / row.parameters).ln().abs() <= 1e-9).count() as f64;
        above += (row.error / vertex.error).ln() * squared(row.parameters) / alike;
        wide += squared(row.parameters).powi(2) / alike;
    }
    let curvature = above / wide;
    let x = steps((least / 1.3, most * 1.3), STEPS);
    let y = x.iter().map(|n| vertex.error * (curvature * squared(*n)).exp()).collect();
    Curve { x, y, low: Vec::new(), high: Vec::new() }
}

fn words(found: &IsoFlop) -> Vec<String> {
    let mut words = Vec::new();
    if found.rows_left_out > 0 {
        words.push(format!("{} rows stand alone at their compute and are not drawn.", found.rows_left_out));
    }
    let biases: Vec<f64> = found.budgets.iter().filter_map(|budget| budget.parabola_bias).collect();
    if let Some(worst) = biases.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())) {
        words.push(format!(
            "Through the surface's own values on these grids the parabola misses the best N by up to {} %, without any \
             noise.",
            minus(&significant(100.0 * (worst.exp() - 1.0), 2))
        ));
    }
    words
}
