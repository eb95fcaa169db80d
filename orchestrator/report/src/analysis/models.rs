//! All laws by all objectives, by the error of what they had not seen.

use super::words::minus;
use super::{Drawing, Material, Table, Undrawable};
use crate::figures::backtest::{BacktestTable, draw_table};
use crate::number::significant;
use fit::backtest::Split;
use fit::choose::{Choice, Contender, Contest, choose};
use fit::{Axis, LawName, Objective};

/// Searches a fit: the table is of hundreds of fits.
const STARTS: usize = 8;
/// Cuts.
const CUTS: usize = 4;

/// The figure, the choice in words, and who was left out.
pub fn draw(of: Material<'_>) -> Result<Drawing, Undrawable> {
    let mut options = of.options.clone();
    options.starts = options.starts.min(STARTS);
    options.frozen.clear();
    let mut contest = Contest::new(Split::Rolling(Axis::C), options);
    contest.hold_out.cuts_max = CUTS;
    // The dear ones (implicit, or with a break) are left to `sweep backtest`.
    contest.laws = LawName::ALL
        .iter()
        .copied()
        .filter(|law| !matches!(law, LawName::M4(_) | LawName::Bnsl(_) | LawName::Repeated))
        .filter(|law| {
            let form = law.law(1.0);
            form.axes().len() > 1 || form.axes() == [Axis::C]
        })
        .collect();
    let choice = choose(of.observations, &contest)?;
    if choice.contenders.iter().all(|one| one.held_out.is_none()) {
        let reasons: Vec<String> = choice.left_out.iter().take(3).map(ToString::to_string).collect();
        return Err(Undrawable::lacks(
            format!("no law could be back-tested ({})", reasons.join("; ")),
            "let more jobs finish, or use --points all",
        ));
    }
    let picture = draw_table(&table(of, &choice))?;
    let mut words = vec![format!("{}.", choice.sentence.trim_end_matches('.'))];
    words.extend(left_out(&choice));
    Ok(Drawing { picture, words, table: Some(scores(&choice)) })
}

/// Laws that did not take part, those of one reason together.
fn left_out(choice: &Choice) -> Option<String> {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for one in &choice.left_out {
        let why = one.why.to_string();
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) => names.push(one.law.as_str()),
            None => reasons.push((why, vec![one.law.as_str()])),
        }
    }
    let all: Vec<String> = reasons.iter().map(|(why, names)| format!("{} ({why})", names.join(", "))).collect();
    (!all.is_empty()).then(|| format!("Left out: {}.", all.join("; ")))
}

fn column(one: &Contender) -> String {
    if one.auto_delta { "huber:auto".to_owned() } else { one.objective.to_string() }
}

fn table(of: Material<'_>, choice: &Choice) -> BacktestTable {
    let (mut laws, mut objectives): (Vec<LawName>, Vec<String>) = (Vec::new(), Vec::new());
    for one in &choice.contenders {
        if !laws.contains(&one.law) {
            laws.push(one.law);
        }
        if !objectives.contains(&column(one)) {
            objectives.push(column(one));
        }
    }
    let first = Objective::LS_LOG.to_string();
    objectives.sort_by_key(|name| (*name != first, name.clone()));
    let cell = |law: LawName, objective: &str, value: &dyn Fn(&Contender) -> Option<f64>| {
        let found = choice.contenders.iter().find(|one| one.law == law && column(one) == objective);
        found.and_then(value).unwrap_or(f64::NAN)
    };
    let grid = |value: &dyn Fn(&Contender) -> Option<f64>| -> Vec<Vec<f64>> {
        laws.iter().map(|&law| objectives.iter().map(|objective| cell(law, objective, value)).collect()).collect()
    };
    let row = laws.iter().position(|law| *law == choice.default);
    BacktestTable {
        title: format!("{}: held-out error of laws and objectives", of.subject.name),
        rmsle: grid(&|one| Some(one.held_out.as_ref()?.rmsle)),
        aicc: grid(&|one| one.criteria.as_ref()?.aicc),
        default: row.map(|row| (row, 0)),
        laws: laws.iter().map(ToString::to_string).collect(),
        objectives,
    }
}

/// The best of each law.
fn scores(choice: &Choice) -> Table {
    let mut seen: Vec<LawName> = Vec::new();
    let mut rows = Vec::new();
    for one in &choice.contenders {
        let Some(scores) = one.held_out.as_ref().filter(|_| !seen.contains(&one.law)) else {
            continue;
        };
        seen.push(one.law);
        rows.push(vec![
            one.law.to_string(),
            column(one),
            significant(scores.rmsle, 3),
            minus(&significant(100.0 * scores.signed, 2)),
            scores.decisions.map_or(String::new(), |share| significant(100.0 * share, 3)),
            significant(one.in_sample_rmsle, 3),
            one.criteria.as_ref().and_then(|one| one.aicc).map_or(String::new(), |aicc| minus(&format!("{aicc:.1}"))),
            one.cuts.to_string(),
        ]);
    }
    Table {
        head: [
            "law",
            "best objective",
            "held-out RMSLE",
            "signed error %",
            "pairs ranked right %",
            "in-sample RMSLE",
            "AICc",
            "cuts",
        ]
        .map(str::to_owned)
        .to_vec(),
        numbers_from: 2,
        rows,
    }
}
