//! Ladders of learning rates and cells by what they have chosen.

use super::*;

/// As [`SPEC`], measured by the loss, with this ladder.
fn text(tune: &str) -> String {
    SPEC.replace("[zeroshot_retrieval]", "[contrastive_loss]") + &format!("tune: {tune}\n")
}

fn tuned(text: &str, factors: &[(&str, f64)]) -> Plan {
    let spec = spec::parse(&Source::new("x.yaml", text)).unwrap_or_else(|error| panic!("{:?}", error.mistakes));
    let first = plan(&spec, &inputs()).unwrap_or_else(|error| panic!("{:?}", error.mistakes));
    let ladder = first.tune.as_ref().expect("a ladder");
    let mut inputs = inputs();
    for group in &ladder.groups {
        let factor = factors.iter().find(|(model, _)| *model == group.model).map(|(_, factor)| *factor);
        inputs.tuned.extend(factor.map(|factor| (group.key.clone(), factor)));
    }
    plan(&spec, &inputs).unwrap_or_else(|error| panic!("{:?}", error.mistakes))
}

#[test]
fn a_ladder_stands_on_the_cell_of_fewest_samples() {
    let plan = good(&text("{lr_factors: [2, 0.5, 1], seeds: 2}"));
    let ladder = plan.tune.as_ref().expect("a ladder");
    assert_eq!(
        (ladder.plan.name.as_str(), ladder.dataset.as_str(), ladder.metric.as_str()),
        ("x-tune", "val", "loss@1024")
    );
    assert!(ladder.lower_is_better && !ladder.is_chosen && ladder.plan.tune.is_none());
    let groups: Vec<_> =
        ladder.groups.iter().map(|group| (group.model.as_str(), group.data_size, group.samples_seen)).collect();
    let of = |model| [(model, 500, 1_024), (model, 4_000, 1_024)];
    assert_eq!(groups, [of("cpu-w64-l3"), of("cpu-w32-l2")].concat());
    let rungs: Vec<_> = ladder.groups[0].rungs.iter().map(|rung| (rung.factor, rung.lr, rung.job_keys.len())).collect();
    assert_eq!(rungs, [(0.5, 5e-4, 2), (1.0, 1e-3, 2), (2.0, 2e-3, 2)]);
    assert_eq!(ladder.plan.jobs.len(), 4 * 3 * 2);
    // What is tried is what would be launched: the recipe's own rung is the cell, job for job.
    let (cells, rungs) = (keys(&plan), keys(&ladder.plan));
    assert_eq!(cells.intersection(&rungs).count(), 4);
    // Without a choice cells are those of a spec without a ladder.
    assert_eq!(cells, keys(&good(&SPEC.replace("[zeroshot_retrieval]", "[contrastive_loss]"))));
}

#[test]
fn cells_have_what_was_chosen_for_their_model() {
    let text = text("{lr_factors: [0.5, 1, 2]}") + "overrides: [{where: {samples_seen: 8k}, set: {lr: 1.5e-3}}]\n";
    let plan = tuned(&text, &[("cpu-w32-l2", 2.0), ("cpu-w64-l3", 0.5)]);
    let ladder = plan.tune.as_ref().expect("a ladder");
    assert!(ladder.is_chosen);
    let lr = |model: &str, samples: u64| {
        let job = plan.jobs.iter().find(|job| job.spec.model.name == model && job.spec.samples_seen == samples);
        format!("{:e}", job.expect("a job").spec.recipe.lr)
    };
    assert_eq!(
        [lr("cpu-w32-l2", 1_024), lr("cpu-w32-l2", 8_064), lr("cpu-w64-l3", 1_024), lr("cpu-w64-l3", 8_064)],
        ["2e-3", "3e-3", "5e-4", "7.5e-4"]
    );
    // The rung that was chosen is the cell.
    let chosen = |group: &Group| {
        let rung = group.rungs.iter().find(|rung| Some(rung.factor) == group.factor).expect("a rung");
        rung.job_keys[0].clone()
    };
    assert!(ladder.groups.iter().map(chosen).all(|key| keys(&plan).contains(&key)));
    // One choice that is missing leaves all as they are.
    let partly = tuned(&text, &[("cpu-w32-l2", 2.0)]);
    assert!(!partly.tune.as_ref().expect("a ladder").is_chosen);
    assert!(partly.jobs.iter().all(|job| [1e-3, 1.5e-3].contains(&job.spec.recipe.lr)));
}

#[test]
fn a_factor_is_on_what_rules_give() {
    let ruled = text("{lr_factors: [0.5, 1]}").replace("lr: 1e-3", "lr: {rule: 1 / width + samples_seen / 1e6}");
    let plan = tuned(&ruled, &[("cpu-w32-l2", 0.5), ("cpu-w64-l3", 1.0)]);
    let mut lrs: Vec<String> = plan
        .jobs
        .iter()
        .map(|job| format!("{} {} {:e}", job.spec.model.name, job.spec.samples_seen, job.spec.recipe.lr))
        .collect();
    lrs.dedup();
    assert_eq!(
        lrs,
        [
            "cpu-w32-l2 1024 1.6137e-2",
            "cpu-w64-l3 1024 1.6649e-2",
            "cpu-w32-l2 8064 1.9657e-2",
            "cpu-w64-l3 8064 2.3689e-2"
        ]
    );
}

#[test]
fn a_choice_is_known_by_all_that_it_is_made_from() {
    let key = |text: &str| good(text).tune.expect("a ladder").groups[0].key.clone();
    let plain = text("{lr_factors: [0.5, 1]}");
    assert_eq!(key(&plain), key(&(plain.clone() + "limits: {retries: 7}\n")));
    assert_eq!(key(&plain), key(&plain.replace("8k, 1k", "16k, 1k")), "longer cells change nothing");
    for other in [
        text("{lr_factors: [0.5, 1, 2]}"),
        text("{lr_factors: [0.5, 1], seeds: 2}"),
        text("{lr_factors: [0.5, 1], metric: loss}"),
        plain.replace("lr: 1e-3", "lr: 1e-3, eps: 1e-8"),
        plain.replace("8k, 1k", "8k, 2k"),
    ] {
        assert_ne!(key(&other), key(&plain), "{other}");
    }
}

#[test]
fn what_a_ladder_cannot_stand_on_is_refused() {
    let zero = text("{lr_factors: [0.5, 1]}").replace("lr: 1e-3", "lr: 0");
    assert_eq!(bad(&zero)[0], "`recipe.lr` is 0 for `cpu-w64-l3`, and `tune` tries multiples of it");
    let ladder = good(&text("{}")).tune.expect("a ladder");
    let cells: f64 = good(&text("{}")).jobs.iter().map(|job| job.compute.train_flops).sum();
    assert_eq!(ladder.groups[0].rungs.len(), 5);
    let budget = format!("{}limits: {{compute: {}}}\n", text("{}"), cells * 1.01);
    assert!(bad(&budget)[0].starts_with("the sweep needs "), "the ladder counts, but for the rungs that are cells");
    assert!(planned(&format!("{}limits: {{compute: {}}}\n", SPEC, cells * 1.01)).is_ok());
}
