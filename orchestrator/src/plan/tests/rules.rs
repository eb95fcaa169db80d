//! Rules of the recipe.

use super::*;

fn ruled(recipe: &str) -> String {
    SPEC.replace("{global_batch: 128, lr: 1e-3}", recipe)
}

/// Model, samples seen, batch, learning rate, decay and warm-up of each job.
fn numbers(plan: &Plan) -> Vec<(&str, u64, u64, f64, f64, u64)> {
    let mut rows: Vec<_> = plan
        .jobs
        .iter()
        .filter(|job| job.spec.data_size == 500)
        .map(|job| {
            let recipe = &job.spec.recipe;
            let (name, samples) = (job.spec.model.name.as_str(), job.spec.samples_seen);
            (name, samples, recipe.global_batch, recipe.lr, recipe.weight_decay, recipe.warmup_samples)
        })
        .collect();
    rows.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    rows
}

#[test]
fn each_cell_gets_its_numbers() {
    let plan = good(&ruled(
        "{global_batch: {rule: 'min(4 * samples_seen^0.5, 250)', round: 32}, lr: {rule: '1e-3 * (width/64)^-1'}, \
         weight_decay: {rule: '0.2 * steps / 8'}, warmup: {rule: '0.1 * samples_seen'}}",
    ));
    // 4 sqrt(1000) = 126.5: 128; 4 sqrt(8000) = 358: 250, which is nearest to 256. Whole batches: 1,024 and 8,192.
    assert_eq!(
        numbers(&plan),
        [
            ("cpu-w32-l2", 1_024, 128, 2e-3, 0.2, 102),
            ("cpu-w32-l2", 8_192, 256, 2e-3, 0.8, 819),
            ("cpu-w64-l3", 1_024, 128, 1e-3, 0.2, 102),
            ("cpu-w64-l3", 8_192, 256, 1e-3, 0.8, 819),
        ]
    );
    let stated: Vec<&str> = plan.rules.keys().copied().collect();
    assert_eq!(stated, ["global_batch", "lr", "warmup", "weight_decay"]);
    assert!(good(SPEC).rules.is_empty());
}

#[test]
fn keys_are_those_of_a_spec_that_writes_the_numbers_out() {
    let written = |model: &str, recipe: &str| {
        keys(&good(&ruled(recipe).replace("model: [cpu-w64-l3, cpu-w32-l2]", &format!("model: {model}"))))
    };
    // The square root of two is 1.414213562...: a rule gives six digits of it, whatever the machine's powers are.
    let rule = keys(&good(&ruled("{global_batch: 128, lr: {rule: 1e-3 * (64/width)^0.5}}")));
    let mut plain = written("cpu-w64-l3", "{global_batch: 128, lr: 1e-3}");
    plain.extend(written("cpu-w32-l2", "{global_batch: 128, lr: 1.41421e-3}"));
    assert_eq!(rule, plain);
    // A share and the rule that says the same.
    let shares = |warmup: &str| keys(&good(&ruled(&format!("{{global_batch: 96, warmup: {warmup}}}"))));
    assert_eq!(shares("{rule: samples_seen / 20}"), shares("5%"));
    // All quantities of a model.
    let all =
        "{global_batch: {rule: 32 * layers * text_layers * text_width / embed_dim}, lr: {rule: parameters / 1e8}}";
    assert_eq!(written("cpu-w32-l2", all), written("cpu-w32-l2", "{global_batch: 128, lr: 0.00191873}"));
    let data = "{global_batch: 128, lr: {rule: 1 / (unique_samples + data_size * 10 + global_batch)}}";
    // 500 of 500, 500 of 1,000; 4,000: 1,000 and 4,000 are seen of it.
    let lrs: BTreeSet<String> = good(&ruled(data)).jobs.iter().map(|job| format!("{:e}", job.spec.recipe.lr)).collect();
    assert_eq!(lrs.into_iter().collect::<Vec<_>>(), ["1.77683e-4", "2.26613e-5", "2.43002e-5"]);
}

#[test]
fn overrides_take_rules_and_replace_them() {
    let text = ruled("{global_batch: 128, lr: {rule: 1 / width}}")
        + "overrides:\n  - {where: {model: cpu-w64-l3}, set: {lr: 1e-3, weight_decay: {rule: 1 / layers}}}\n";
    let plan = good(&text);
    let of = |model: &str| {
        let found = numbers(&plan).into_iter().find(|row| row.0 == model).expect("a job");
        (found.3, found.4)
    };
    assert_eq!((of("cpu-w32-l2"), of("cpu-w64-l3")), ((0.03125, 0.2), (1e-3, 0.333_333)));
    assert_eq!(plan.rules["weight_decay"], ["1 / layers"]);
}

#[test]
fn what_a_rule_may_not_give_is_refused_with_the_cell() {
    let said = |recipe: &str| {
        let error = planned(&ruled(recipe)).expect_err("a mistake");
        (error.mistakes.len(), error.mistakes[0].message.clone(), format!("{:?}", error.mistakes[0]))
    };
    let (count, message, all) = said("{global_batch: 128, lr: {rule: 1e-3 * (40 - width)}}");
    assert_eq!(
        (count, message.as_str()),
        (1, "`recipe.lr.rule` gives -0.024 for `cpu-w64-l3` with 8,000 samples seen of 500 unique")
    );
    assert!(all.contains("allowed: a number, at least 0"), "{all}");
    let (count, message, _) = said("{global_batch: 128, lr: {rule: 1 / (width - 64)}}");
    assert_eq!(count, 1);
    assert!(message.starts_with("`recipe.lr.rule` gives inf for `cpu-w64-l3`"), "{message}");
    assert!(said("{global_batch: {rule: 0 * width}}").1.starts_with("`recipe.global_batch.rule` gives 0 for"));
    assert!(said("{global_batch: 128, warmup: {rule: (width - 100)^0.5}}").1.contains("gives NaN for"));
    // What numbers contradict is found once they are there.
    let (_, message, _) = said("{global_batch: {rule: 30 * width}}");
    assert_eq!(message, "`grid.samples_seen[1]` is 1000, less than one global batch of 1,920");
    let (_, message, _) = said("{global_batch: {rule: 3 * width}, accum_freq: 5}");
    assert_eq!(message, "a global batch of 192 can't be cut into 5 equal parts");
    let (_, message, _) = said("{global_batch: 128, warmup: {rule: 2 * samples_seen}}");
    assert_eq!(message, "a warm-up of 16,128 samples is longer than the 8,064 samples that `cpu-w64-l3` sees");
}

#[test]
fn trunks_are_shared_by_rules_that_know_no_length() {
    let text = "name: x\ndata: {pool: train}\n\
                grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [1280, 2560], data_size: 500}\n\
                recipe: {global_batch: 128, lr: LR, warmup: {rule: 2 * global_batch}, schedule: constant-cooldown}\n";
    let mut inputs = inputs();
    inputs.runner.branches = true;
    let plan = planned_with(&text.replace("LR", "{rule: 0.064 / width}"), &inputs).expect("a plan");
    let trunks = plan.jobs.iter().filter(|job| job.parent.is_some()).count();
    assert_eq!(
        (plan.jobs.len(), trunks),
        (8, 6),
        "a cell and a piece for each model and length; each but the first goes on"
    );
    let plain = planned_with(
        &text
            .replace("LR", "1e-3, accum_freq: 1")
            .replace("{rule: 2 * global_batch}", "256")
            .replace("cpu-w32-l2, ", ""),
        &inputs,
    );
    assert!(keys(&plain.expect("a plan")).is_subset(&keys(&plan)));
}
