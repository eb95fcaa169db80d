//! Specs as people write them, right and wrong.

use proptest::prelude::*;
use protocol::{
    Alpha, Augmentation, Choose, EvaluationTask, Head, Interpolation, Loss, OnSpike, Precision, Preprocess, ResizeMode,
    Schedule, Shots,
};

use super::*;

mod rules;
mod tune;

const SMALL: &str = "\
name: small
runner: synthetic
grid: {model: cpu-w32-l2, samples_seen: [8k, 3e4], data_size: [500, 1_000], seed: [0, 1]}
recipe: {global_batch: 128}
";

fn read(text: &str) -> Result<Spec, SpecError> {
    parse(&Source::new("x.yaml", text))
}

fn good(text: &str) -> Spec {
    read(text).unwrap_or_else(|error| panic!("{}", messages(&error).join("\n")))
}

fn messages(error: &SpecError) -> Vec<String> {
    error.mistakes.iter().map(|mistake| mistake.message.clone()).collect()
}

fn bad(text: &str) -> Vec<String> {
    messages(&read(text).expect_err("a mistake"))
}

#[test]
fn small_spec() {
    let spec = good(SMALL);
    assert_eq!(spec.grid.samples_seen, [8_000, 30_000]);
    assert_eq!(spec.grid.data_size, [DataSize::Samples(500), DataSize::Samples(1_000)]);
    let cells = cells(&spec);
    assert_eq!(cells.len(), 8);
    assert_eq!(cells[0].samples_rounded(), 8_064);
    assert_eq!(
        spec.backend,
        Backend::Local {
            ranks: 1,
            slots: None,
            threads_per_slot: None,
            work_secs: 60,
            spool_only: false,
            memory: None
        }
    );
    assert_eq!(spec.limits.retries, 2);
}

#[test]
fn template_is_a_spec() {
    let spec = good(TEMPLATE);
    assert_eq!(cells(&spec).len(), 8);
    // What is commented out must be right too.
    let all: String = TEMPLATE
        .lines()
        .map(|line| {
            let bare = line.trim_start();
            let key = bare.strip_prefix("# ").unwrap_or_default();
            let is_yaml = key.starts_with("- {") || key.starts_with("  - ") || key.starts_with("    set:");
            let is_key = key
                .split_once(':')
                .is_some_and(|(name, _)| !name.contains(' ') && name != "Question" && name != "yaml-language-server");
            if is_yaml || is_key { format!("{}\n", line.replacen("# ", "", 1)) } else { format!("{line}\n") }
        })
        .collect();
    let spec = good(&all);
    assert_eq!((spec.exclude.len(), spec.include.len(), spec.overrides.len()), (1, 1, 1));
    assert_eq!(spec.limits.time_secs, Some(1_800));
}

/// The table of the recipe states the defaults that the code has.
#[test]
fn defaults_are_those_of_the_table() {
    let stated: String = recipe_keys::RECIPE
        .iter()
        .filter_map(|key| match key.need {
            keys::Need::Default(value) => Some(format!("  {}: {value}\n", key.name)),
            _ => None,
        })
        .collect();
    let head = "name: x\ngrid: {model: cpu-w32-l2, samples_seen: 8k}\nrecipe:\n  global_batch: 128\n";
    let (none, all) = (good(head), good(&format!("{head}{stated}")));
    assert_eq!(none.recipe, all.recipe);
    assert_eq!(none.grid.data_size, [DataSize::All]);
    assert_eq!(none.grid.seed, [0]);
    assert_eq!(none.runner, "clip");
}

#[test]
fn the_headline_is_a_metric() {
    assert_eq!(good(&format!("{SMALL}headline: emoji-val/acc1\n")).headline.as_deref(), Some("emoji-val/acc1"));
    let text = format!("{SMALL}headline: acc1\n");
    let error = read(&text).expect_err("a mistake");
    assert_eq!(messages(&error).len(), 1, "{error:?}");
    let label = miette::Diagnostic::labels(&error.mistakes[0]).and_then(|mut labels| labels.next()).expect("a place");
    assert_eq!(&text[label.offset()..label.offset() + label.len()], "acc1", "the value is pointed at");
    assert!(label.label().is_some_and(|label| label.contains("a data set and a metric")), "{label:?}");
}

#[test]
fn every_field() {
    let spec = good(
        "name: all\nquestion: why\nrunner: ./own\ndata: {pool: a/b, name: p}\n\
         grid: {model: [ViT-B-32, own.json], samples_seen: [2B, 34B], data_size: [400M, all], seed: 7}\n\
         exclude: [{model: own.json, data_size: all}]\n\
         include: [{model: ViT-H-14, samples_seen: 34B}]\n\
         recipe: {global_batch: 32k, lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0, warmup: 2M, \
         schedule: constant, precision: amp_bf16, loss: reference, accum_freq: 4, grad_checkpointing: true, augmentation: none, \
         alpha: white, image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.25, 0.5], interpolation: bilinear, \
         resize_mode: squash, image_size: 224, context_length: 77, grad_clip_norm: 1, on_spike: rollback, checkpoint_every: 10%, extra: {noise: 0.1}}\n\
         overrides: [{where: {model: ViT-H-14}, set: {lr: 5e-4, extra: {law: 2}}}]\n\
         evaluations: [{pool: c, tasks: contrastive_loss, templates: ['a {}'], at_samples: [1B, 50%]}]\n\
         backend: {local: {ranks: 4, slots: 2, threads_per_slot: 1, worker_time: 0s, memory: 64G}}\n\
         limits: {parallel: 3, retries: 0, time: 1h30m, compute: 1e21, skipped: 0.5%}\n",
    );
    let cells = cells(&spec);
    assert_eq!(cells.len(), 2 * 2 * 2 - 2 + 2);
    let last = cells.last().expect("cells");
    assert_eq!((last.model.as_str(), last.data_size, last.seed), ("ViT-H-14", DataSize::All, 7));
    assert_eq!((last.recipe.lr, cells[0].recipe.lr), (5e-4, 1e-3));
    assert_eq!(last.recipe.extra.len(), 2);
    assert_eq!(spec.recipe.schedule, Schedule::Constant);
    assert_eq!(spec.recipe.precision, Precision::AmpBf16);
    assert_eq!((spec.recipe.loss, spec.recipe.accum_freq, spec.recipe.grad_checkpointing), (Loss::Reference, 4, true));
    assert_eq!((spec.recipe.augmentation, spec.recipe.alpha), (Augmentation::None, Alpha::White));
    let (interpolation, resize_mode) = (Interpolation::Bilinear, ResizeMode::Squash);
    let preprocess = Preprocess { mean: [0.5; 3], std: [0.5, 0.25, 0.5], interpolation, resize_mode };
    assert_eq!(spec.recipe.preprocess, preprocess);
    assert_eq!(spec.recipe.on_spike, OnSpike::Rollback);
    assert_eq!(spec.evaluations[0].tasks, [EvaluationTask::ContrastiveLoss]);
    assert_eq!(spec.evaluations[0].at_samples, [Amount::Samples(1_000_000_000), Amount::Percent(50.0)]);
    assert_eq!(
        spec.backend,
        Backend::Local {
            ranks: 4,
            slots: Some(2),
            threads_per_slot: Some(1),
            work_secs: 0,
            spool_only: false,
            memory: Some("64G".to_owned())
        }
    );
    assert_eq!(spec.limits.compute_flops, Some(1e21));
    assert_eq!(spec.limits.skipped, Some(Amount::Percent(0.5)));
}

#[test]
fn memory_of_a_local_job_is_an_amount() {
    for place in ["backend", "companions"] {
        let text = match place {
            "backend" => format!("{SMALL}backend: {{local: {{memory: 16 GB}}}}\n"),
            _ => format!(
                "{SMALL}companions: {{backend: {{local: {{memory: 16 GB}}}}}}\n\
                 evaluations: [{{pool: p, tasks: contrastive_loss, evaluate: every_checkpoint}}]\n"
            ),
        };
        for none in ["16 GB", "0G", "99999999T"] {
            let said = bad(&text.replace("16 GB", none));
            let message = format!("backend.local.memory` is `{none}`, which is no amount of memory");
            assert!(said.len() == 1 && said[0].ends_with(&message), "{said:?}");
        }
    }
}

#[test]
fn mistakes_of_form_come_together() {
    let found = bad("name: a b\ngrid: {modle: x, samples_seen: [12kk, -1, 2.5, .nan, 1e300], seed: true}\n\
         recipe: {lr: -1, betas: [0.9], warmup: 200%, schedule: cosin, precision: null}\nlimits: {time: 30}\n");
    let expected = [
        "`name` can't be `a b`",
        "`grid.modle` is no key of this section",
        "`grid.samples_seen[0]` can't be `12kk`",
        "`grid.samples_seen[1]` can't be `-1`",
        "`grid.samples_seen[2]` can't be `2.5`",
        "`grid.samples_seen[3]` can't be `.nan`",
        "`grid.samples_seen[4]` can't be `1e300`",
        "`grid.seed` can't be `true`",
        "`recipe.global_batch` is missing: samples a step, over all devices; also the number of contrasts",
        "`recipe.lr` can't be `-1`",
        "`recipe.betas` can't be a list of 1",
        "`recipe.warmup` can't be `200%`",
        "`recipe.schedule` can't be `cosin`",
        "`recipe.precision` has no value",
        "`limits.time` can't be `30`",
    ];
    assert_eq!(found, expected);
}

#[test]
fn contradictions_come_together() {
    let found = bad("name: x\ngrid: {model: [ViT-B-32, ViT-B-16], samples_seen: [100, 8k], data_size: [64, 1k]}\n\
         exclude: [{model: ViT-L-14}]\ninclude: [{model: ViT-B-16}]\n\
         recipe: {global_batch: 128, warmup: 10k, image_size: 100, accum_freq: 3}\n\
         overrides: [{where: {seed: 4}, set: {lr: 1}}]\n\
         evaluations: [{pool: a, tasks: contrastive_loss, at_samples: [9k]}, {pool: a, tasks: contrastive_loss}]\n");
    assert_eq!(
        found,
        [
            "`grid.samples_seen[0]` is 100, less than one global batch of 128",
            "`grid.data_size[0]` is 64: a global batch of 128 would hold a pair twice",
            "`exclude[0]` matches no cell of the grid",
            "`include[0]` adds nothing: the grid or an entry above has these cells already",
            "a warm-up of 10,000 samples is longer than the 8,064 samples that `ViT-B-32` sees",
            "`ViT-B-32` can't be built: `vision_cfg.image_size` is 100, which patches of 32 x 32 pixels do not tile",
            "a global batch of 128 can't be cut into 3 equal parts",
            "`overrides[0].where` matches no cell",
            "`evaluations[0].at_samples[0]` is 9,000, but no job sees more than 8,064",
            "`evaluations[1].pool` is `a` as in an entry above, so their results would mix",
        ]
    );
}

#[test]
fn probes_have_something_to_train_on_and_their_task() {
    let evaluation = |text: &str| {
        format!(
            "name: x\ngrid: {{model: ViT-B-32, samples_seen: 8k}}\nrecipe: {{global_batch: 128, lr: 1e-3}}\n\
             evaluations: [{{pool: wds/cars, split: test, {text}}}]\n"
        )
    };
    let spec = good(&evaluation("tasks: linear_probe, train: wds/cars/train, shots: [1, 10, vtab1k, all]"));
    assert_eq!(spec.evaluations[0].pool, "wds/cars/test");
    let probe = spec.evaluations[0].probe.as_ref().expect("a probe");
    assert_eq!(probe.shots, [Shots::Each(1), Shots::Each(10), Shots::Vtab1k, Shots::All]);
    assert_eq!(
        (spec.evaluations[0].train.as_deref(), &spec.evaluations[0].fine_tuning),
        (Some("wds/cars/train"), &None)
    );
    assert_eq!((&probe.lr[..], &probe.epochs[..]), (&[0.1, 0.01, 0.001][..], &[10, 20, 40][..]));
    assert_eq!((probe.batch_size, probe.seed, probe.choose), (256, 0, Choose::Validation));
    let all =
        "tasks: linear_probe, train: t, choose: test, probe_lr: 0.5, probe_epochs: 3, probe_batch: 64, probe_seed: 2";
    let spec = good(&evaluation(all));
    let probe = spec.evaluations[0].probe.as_ref().expect("a probe");
    assert_eq!((&probe.lr[..], &probe.epochs[..], probe.batch_size), (&[0.5][..], &[3][..], 64));
    assert_eq!((probe.seed, probe.choose, &probe.shots[..]), (2, Choose::Test, &[Shots::All][..]));
    let spec = good(&evaluation("tasks: fine_tuning, train: t, ft_steps: 1k"));
    let tuning = spec.evaluations[0].fine_tuning.as_ref().expect("a fine-tuning");
    let study = (tuning.head, tuning.batch_size, tuning.lr, tuning.weight_decay, tuning.grad_clip_norm);
    assert_eq!((study, tuning.layer_decay), ((Head::Zeroshot, 128, 1e-5, 0.1, 1.0), 1.0), "the 2022 study's");
    assert_eq!((tuning.steps, tuning.warmup_steps, spec.evaluations[0].probe.as_ref()), (1000, 100, None));
    let all = "tasks: fine_tuning, train: t, ft_head: linear, ft_steps: 9, ft_warmup: 3, ft_lr: 1e-3, ft_layer_decay: 0.7, \
               ft_weight_decay: 0, ft_grad_clip_norm: 5, ft_batch: 32, ft_augmentation: none, ft_seed: 4";
    let spec = good(&evaluation(all));
    let expected = FineTuning {
        head: Head::Linear,
        steps: 9,
        warmup_steps: 3,
        batch_size: 32,
        lr: 1e-3,
        layer_decay: 0.7,
        weight_decay: 0.0,
        grad_clip_norm: 5.0,
        augmentation: Augmentation::None,
        seed: 4,
    };
    assert_eq!(spec.evaluations[0].fine_tuning, Some(expected));
    for (text, message) in [
        ("tasks: linear_probe", "the task `linear_probe` has nothing to train on"),
        ("tasks: linear_probe, shots: 5", "the task `linear_probe` has nothing to train on"),
        ("tasks: zeroshot_classification, train: t", "`train` stands without a task that trains"),
        (
            "tasks: linear_probe, train: t, validation: v, choose: test",
            "`choose: test` leaves `validation` without a use",
        ),
        (
            "tasks: linear_probe, train: t, shots: vtab1k, choose: test",
            "`shots: vtab1k` chooses on 200 of its own images, and `choose` says `test`",
        ),
        ("tasks: fine_tuning", "the task `fine_tuning` has nothing to train on"),
        ("tasks: fine_tuning, train: t, shots: 5", "what speaks of a linear probe stands without its task"),
        ("tasks: linear_probe, train: t, ft_lr: 1", "what speaks of fine-tuning stands without its task"),
        ("tasks: fine_tuning, train: t, ft_steps: 0", "`evaluations[0].ft_steps` can't be `0`"),
        ("tasks: linear_probe, train: t, shots: 0", "`evaluations[0].shots` can't be `0`"),
        ("tasks: linear_probe, train: t, choose: best", "`evaluations[0].choose` can't be `best`"),
    ] {
        assert_eq!(bad(&evaluation(text)), [message], "{text}");
    }
}

#[test]
fn structure() {
    for (text, message) in [
        ("", "the spec is empty"),
        ("# nothing\n", "the spec is empty"),
        ("- a\n", "a spec can't be a list of 1"),
        ("hello\n", "a spec can't be `hello`"),
        ("name: x\nname: y\n", "`name` is there twice"),
        ("name: x\nrecipe: {global_batch: 1}\n", "`grid` is missing: values on each axis"),
    ] {
        assert!(bad(text).contains(&message.to_owned()), "{text:?}: {:?}", bad(text));
    }
    for (text, part) in [
        ("name: x\ngrid:\n\tmodel: a\n", "can't be read as YAML"),
        ("name: [x\n", "can't be read as YAML"),
        ("name: x\n---\nname: y\n", "more than one document"),
        ("name: !tag x\n", "can't be read as YAML"),
        ("a: &a [*a]\n", "can't be read as YAML"),
    ] {
        let found = bad(text);
        assert!(found.len() == 1 && found[0].contains(part), "{text:?}: {found:?}");
    }
}

#[test]
fn bombs_fizzle() {
    let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, of) in ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip("abcdefgh".chars()) {
        let list = vec![format!("*{of}"); 10].join(", ");
        laughs += &[name, ": &", name, " [", &list, "]\n"].concat();
    }
    assert!(bad(&laughs)[0].contains("can't be read as YAML"));
    assert_eq!(bad(&"[".repeat(10_000)).len(), 1);
    assert_eq!(bad(&"{a: ".repeat(200)).len(), 1);
    let wide =
        format!("name: x\ngrid: {{model: cpu-w32-l2, samples_seen: 8k, seed: [{}]}}\nrecipe: {{global_batch: 1}}\n", {
            (0..=CELLS_MAX).map(|seed| seed.to_string()).collect::<Vec<_>>().join(",")
        });
    assert_eq!(bad(&wide), ["`grid` makes too many cells"]);
    assert!(bad(&format!("name: {}", "m".repeat(100_000))).len() > 1);
    assert!(bad(&format!("limits: {{compute: {}}}", "m".repeat(100_000))).len() > 1);
}

#[test]
fn places_are_right() {
    let text = "\u{feff}name: é # ü\r\ngrid:\r\n  model: [ViT-B-32, ViT-B32]\r\n  samples_seen: 1\r\nrecipe: {global_batch: 1}\r\n";
    let error = read(text).expect_err("mistakes");
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none()).with_links(false);
    let mut out = String::new();
    handler.render_report(&mut out, &error.mistakes[1]).expect("a string");
    assert!(out.contains("[x.yaml:3:21]") && out.contains("did you mean `ViT-B-32`?"), "{out}");
}

#[test]
fn schema_and_parser_know_the_same_keys() {
    fn walk(keys: &[keys::Key], schema: &serde_json::Value, path: &str) -> usize {
        let properties = schema["properties"].as_object().unwrap_or_else(|| panic!("no properties at {path}"));
        let mut names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        names.sort_unstable();
        let mut described: Vec<&str> = properties.keys().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(described, names, "{path}");
        assert_eq!(schema["additionalProperties"], false, "{path}");
        let inner = |key: &keys::Key| {
            let (place, schema) = (format!("{path}.{}", key.name), &properties[key.name]);
            match key.kind {
                keys::Kind::Section(keys) | keys::Kind::Some(keys) => walk(keys, schema, &place),
                keys::Kind::List(keys::Kind::Section(keys) | keys::Kind::Some(keys)) => {
                    walk(keys, &schema["items"], &place)
                }
                keys::Kind::Variant(keys) | keys::Kind::Ruled(_, keys) => walk(keys, &schema["anyOf"][1], &place),
                _ => 0,
            }
        };
        keys.len() + keys.iter().map(inner).sum::<usize>()
    }
    assert!(walk(keys::SPEC_KEYS, &schema(), "spec") > 60);
}

prop_compose! {
    fn valid()(
        models in prop::sample::subsequence(model_names().filter(|name| name.starts_with("cpu")).collect::<Vec<_>>(), 1..4),
        samples in prop::collection::btree_set(1_000..9_000_u64, 1..4), sizes in prop::collection::btree_set(200..900_u64, 1..4),
        seeds in prop::collection::btree_set(0..1_000_000_u64, 1..4), batch in 1..200_u64, lr in prop_oneof![Just(0.0), 1e-6..1.0_f64],
        percent in 0..=100_u32, exponent in any::<bool>(),
    ) -> (Axes, u64, f64, String) {
        let samples: Vec<u64> = samples.into_iter().collect();
        let written: Vec<String> = samples
            .iter()
            .map(|samples| if exponent { format!("{samples}e3") } else { format!("{samples}k") })
            .collect();
        let axes = Axes {
            model: models.iter().map(|name| (*name).to_owned()).collect(),
            samples_seen: samples.iter().map(|samples| samples * 1_000).collect(),
            data_size: sizes.into_iter().map(DataSize::Samples).collect(),
            seed: seeds.into_iter().collect(),
        };
        let sizes: Vec<u64> = axes.data_size.iter().map(|size| match size {
            DataSize::Samples(size) => *size,
            DataSize::All => 0,
        }).collect();
        let text = format!(
            "recipe: {{global_batch: {batch}, lr: {lr}, warmup: {percent}%}}\nname: x\n\
             grid:\n  model: [{}]\n  samples_seen: [{}]\n  data_size: {sizes:?}\n  seed: {:?}\n",
            models.join(", "), written.join(", "), axes.seed,
        );
        (axes, batch, lr, text)
    }
}

proptest! {
    #[test]
    fn valid_specs_survive((axes, batch, lr, text) in valid()) {
        let spec = good(&text);
        prop_assert_eq!(&spec.grid, &axes);
        prop_assert_eq!((spec.recipe.global_batch, spec.recipe.lr), (batch, lr));
        prop_assert_eq!(cells(&spec).len(), axes.model.len() * axes.samples_seen.len() * axes.data_size.len() * axes.seed.len());
    }

    #[test]
    fn any_text_is_answered(text in "\\PC*") {
        let _ = read(&text);
    }

    /// Pieces of YAML in any order, real keys among them.
    #[test]
    fn near_specs_are_answered(pieces in prop::collection::vec(prop_oneof![
        prop::sample::select(vec![
            "name:", "grid:", "model:", "recipe:", "\n", "\n  ", "\n    ", " ", "\t", "- ", "[", "]", "{", "}", ",", ": ", "&a ",
            "*a", "!t ", "| ", ">\n", "'", "\"", "#", "---\n", "...\n", "~", "<<", "? ", "1e400", "-0", ".nan", "all", "é", "\u{85}",
            "\u{feff}", "\r\n", "\0", "0x1f", "12345678901234567890123", "samples_seen:", "backend:", "local", "include:",
        ]).prop_map(str::to_owned),
        "[a-z0-9]{0,4}",
    ], 0..40)) {
        let _ = read(&pieces.concat());
    }

    /// A spec with one character changed gives a spec or mistakes with places inside the text.
    #[test]
    fn damaged_specs_are_answered(at in 0..TEMPLATE.len(), with in any::<char>(), remove in any::<bool>()) {
        let mut text = TEMPLATE.to_owned();
        if remove { text.remove(at); } else { text.insert(at, with); }
        if let Err(error) = read(&text) {
            prop_assert!(!error.mistakes.is_empty());
            let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none());
            for mistake in &error.mistakes {
                handler.render_report(&mut String::new(), mistake).expect("a string");
            }
        }
    }
}

#[test]
fn a_cooldown_fits_and_its_warm_up_is_a_number_of_samples() {
    let with = |recipe: &str| {
        let text = format!(
            "name: x\ngrid: {{model: cpu-w32-l2, samples_seen: [1k, 8k]}}\nrecipe: {{global_batch: 100, {recipe}}}\n"
        );
        match parse(&Source::new("x.yaml", &text)) {
            Ok(spec) => vec![format!("{:?} {:?}", spec.recipe.schedule, spec.recipe.cooldown)],
            Err(error) => error.mistakes.into_iter().map(|mistake| mistake.message).collect::<Vec<_>>(),
        }
    };
    assert_eq!(with("schedule: constant-cooldown, warmup: 500"), ["ConstantCooldown None"]);
    assert_eq!(with("schedule: constant-cooldown, warmup: 0, cooldown: 30%"), ["ConstantCooldown Some(Percent(30.0))"]);
    assert_eq!(
        with("schedule: constant-cooldown"),
        ["a warm-up of 10 % of the samples seen is another one for each length, and cells with `schedule: \
          constant-cooldown` are the same training up to their cooldowns"]
    );
    assert_eq!(
        with("schedule: constant-cooldown, warmup: 500, cooldown: 600"),
        ["a cooldown of 600 samples after a warm-up of 500 does not fit into the 1,000 samples that `cpu-w32-l2` sees"]
    );
    assert_eq!(with("warmup: 100, cooldown: 10%"), ["`recipe.cooldown` is for `schedule: constant-cooldown` alone"]);
}

#[test]
fn a_rollback_needs_checkpoints() {
    let with = |recipe: &str| {
        format!(
            "name: x\ngrid: {{model: cpu-w32-l2, samples_seen: 8k}}\nrecipe: {{global_batch: 100, on_spike: {recipe}}}\n"
        )
    };
    assert_eq!(good(&with("rollback, checkpoint_every: 1k")).recipe.on_spike, OnSpike::Rollback);
    assert_eq!(good(&with("go_on")).recipe.on_spike, OnSpike::GoOn);
    let without = bad(&with("rollback"));
    assert_eq!(
        without,
        ["`recipe.on_spike` goes back to the last checkpoint, and nothing says how often there is one"]
    );
}

#[test]
fn laws_to_fit_have_the_defaults_of_the_command() {
    let with = |fits: &str| {
        format!("name: x\ngrid: {{model: cpu-w32-l2, samples_seen: 8k}}\nrecipe: {{global_batch: 100}}\nfits: {fits}\n")
    };
    let spec =
        good(&with("[{metric: val/acc1}, {metric: a/b, law: additive, points: 'bins:3', rows: checkpoints, seed: 7}]"));
    let [first, second] = &spec.fits[..] else { panic!("{:?}", spec.fits) };
    let usual = crate::fit::Options::new(crate::fit::Response::Fraction);
    assert_eq!((first.law, &first.points, first.objective), (usual.law, &usual.points, usual.objective));
    assert_eq!((first.resamples, first.seed, first.checkpoints), (usual.resamples, usual.seed, false));
    assert_eq!((second.law.as_str(), second.points.to_string().as_str()), ("additive", "bins:3"));
    assert_eq!((second.seed, second.checkpoints), (7, true));
    assert_eq!(good(&with("[]")).fits, []);
    let wrong = bad(&with("[{metric: acc1, law: powerr, points: 'bins:x', compute: flops}, {law: power}]"));
    assert_eq!(wrong.len(), 5, "{wrong:?}");
}
