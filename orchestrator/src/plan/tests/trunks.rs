//! Cells that share a trunk.

use super::*;

/// As [`SPEC`], with a trunk for each model and data size.
fn cooling(axis: &str, more: &str) -> Plan {
    let text = format!(
        "name: x\ndata: {{pool: train}}\n\
         grid: {{model: cpu-w32-l2, samples_seen: {axis}, data_size: [500, all]}}\n\
         recipe: {{global_batch: 128, warmup: 256, schedule: constant-cooldown{more}}}\n"
    );
    let spec = spec::parse(&Source::new("x.yaml", &text)).unwrap_or_else(|error| panic!("{:?}", error.mistakes));
    let mut inputs = inputs();
    inputs.runner.branches = true;
    super::plan(&spec, &inputs).unwrap_or_else(|error| panic!("{:?}", error.mistakes))
}

#[test]
fn cells_that_differ_in_samples_seen_share_a_trunk() {
    let plan = cooling("[1280, 2560, 10240]", "");
    assert_eq!(plan.jobs.len(), 12, "a cell and a piece for each of 3 lengths and 2 data sizes");
    let find = |key: &str| plan.jobs.iter().find(|job| job.job_key == key).expect("a parent is in the plan");
    for job in &plan.jobs {
        let Some(parent) = &job.parent else { continue };
        let trunk = find(&parent.job_key);
        let mut same = trunk.spec.to_job_spec();
        assert_eq!(parent.samples_seen, same.samples_seen);
        assert!(same.evaluations.is_empty() && same.samples_seen < job.spec.samples_seen);
        let spec = job.spec.to_job_spec();
        (same.samples_seen, same.recipe) = (spec.samples_seen, spec.recipe.clone());
        assert_eq!(same, JobSpec { evaluations: Vec::new(), ..spec });
        let place = |key: &str| plan.jobs.iter().position(|job| job.job_key == key);
        assert!(place(&parent.job_key) < place(&job.job_key), "a parent comes first");
    }
    // 10,240: 80 steps, the last 16 cool down; 20: 4; 10: 2.
    let of_all = plan.jobs.iter().filter(|job| job.spec.data_size == 500);
    let courses: Vec<(u64, u64)> =
        of_all.map(|job| (job.spec.samples_seen - job.own_samples(), job.spec.samples_seen)).collect();
    let expected = [(0, 1024), (1024, 1280), (1024, 2048), (2048, 2560), (2048, 8192), (8192, 10_240)];
    assert_eq!(courses, expected);
    let own: f64 = plan.jobs.iter().map(|job| job.own_share() * job.compute.train_flops).sum();
    let longest = plan.jobs.last().expect("jobs").compute.train_flops;
    assert!((own - 2.0 * longest * 11_008.0 / 10_240.0).abs() < 1e-6 * own);
    let secs: f64 = plan.jobs.iter().filter_map(|job| job.secs).sum();
    assert!((secs - 2.0 * 11_008.0 * 1e-3).abs() < 1e-9);
}

#[test]
fn a_cells_key_is_that_of_the_cell_alone_and_pieces_do_not_depend_on_longer_cells() {
    let (short, long) = (keys(&cooling("[1280, 2560]", "")), keys(&cooling("[1280, 2560, 10240]", "")));
    assert!(short.is_subset(&long) && long.len() == short.len() + 4);
    let text = "name: x\ndata: {pool: train}\ngrid: {model: cpu-w32-l2, samples_seen: [1280, 2560], data_size: [500, all]}\n\
                recipe: {global_batch: 128, warmup: 256, schedule: constant-cooldown}\n";
    let alone = good(text);
    assert!(alone.jobs.len() == 4 && keys(&alone).is_subset(&short), "a runner that can't go on from another's");
    assert!(keys(&cooling("[1280]", ", cooldown: 256")) == keys(&cooling("[1280]", "")), "20 % of 1,280");
    assert!(keys(&cooling("[1280]", ", cooldown: 384")).is_disjoint(&keys(&cooling("[1280]", ""))));
    // How often checkpoints are written changes nothing.
    assert_eq!(keys(&cooling("[1280, 2560]", ", checkpoint_every: 256")), short);
}

#[test]
fn what_is_measured_in_the_trunk_is_refused() {
    let text = "name: x\ndata: {pool: train}\ngrid: {model: cpu-w32-l2, samples_seen: 1280}\n\
                recipe: {global_batch: 128, warmup: 256, schedule: constant-cooldown}\n\
                evaluations: [{pool: val, tasks: [zeroshot_retrieval], at_samples: [AT]}]\n";
    let plan = |at: &str| {
        let spec = spec::parse(&Source::new("x.yaml", &text.replace("AT", at))).expect("a spec");
        let mut inputs = inputs();
        inputs.runner.branches = true;
        super::plan(&spec, &inputs).map_err(|error| error.mistakes[0].message.clone())
    };
    assert!(plan("1024").is_ok() && plan("90%").is_ok());
    assert_eq!(
        plan("50%").expect_err("too early"),
        "`val` is to be measured at 640 of 1,280 samples seen, which is before the cooldown begins at 1,024, in the trunk, \
         which nothing is measured in"
    );
}
