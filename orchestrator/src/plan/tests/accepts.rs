//! Settings that a runner does not take.

use super::*;

#[test]
fn what_a_runner_does_not_take_is_refused_where_it_was_written() {
    let mut inputs = inputs();
    let accepts = [("schedule", vec!["cosine"]), ("extra", vec![]), ("tasks", vec!["zeroshot_retrieval"])];
    inputs.runner.accepts =
        accepts.map(|(setting, values)| (setting.to_owned(), values.into_iter().map(str::to_owned).collect())).into();
    let said = |change: &dyn Fn(&str) -> String| {
        let text = change(SPEC);
        let spec = spec::parse(&Source::new("x.yaml", &text)).unwrap_or_else(|error| panic!("{:?}", error.mistakes));
        super::plan(&spec, &inputs).map_err(|error| {
            let help = |mistake| miette::Diagnostic::help(mistake).map(|help| help.to_string()).unwrap_or_default();
            let said = error.mistakes.iter().map(|mistake| format!("{}: {}", mistake.message, help(mistake)));
            said.collect::<Vec<_>>()
        })
    };
    assert!(said(&str::to_owned).is_ok());
    let recipe = |spec: &str| spec.replace("lr: 1e-3", "lr: 1e-3, schedule: constant, extra: {noise: 1}");
    assert_eq!(
        said(&recipe).expect_err("settings that it does not take"),
        [
            "`recipe.schedule` is `constant`, which runner `clip` does not take: it takes `cosine`",
            "`recipe.extra` is `noise`, which runner `clip` does not take: leave it out"
        ]
    );
    let one_cell = "overrides: [{where: {model: cpu-w32-l2}, set: {schedule: constant}}]\nevaluations";
    assert_eq!(
        said(&|spec| spec.replace("evaluations", one_cell)).expect_err("a setting of some cells"),
        ["`overrides[0].set.schedule` is `constant`, which runner `clip` does not take: it takes `cosine`"]
    );
    assert_eq!(
        said(&|spec| spec.replace("[zeroshot_retrieval]", "[zeroshot_retrieval, contrastive_loss]"))
            .expect_err("a task that it does not know"),
        ["`evaluations[0].tasks` is `contrastive_loss`, which runner `clip` does not take: it takes \
          `zeroshot_retrieval`"]
    );
}

#[test]
fn tasks_are_for_the_runner_that_measures_them() {
    let accepting = |name: &str, task: &str| Description {
        name: name.to_owned(),
        init: true,
        accepts: [("tasks".to_owned(), vec![task.to_owned()])].into(),
        ..inputs().runner
    };
    let inputs = Inputs {
        runner: accepting("own", "zeroshot_retrieval"),
        companion_runner: Some(accepting("other", "contrastive_loss")),
        ..inputs()
    };
    let refused = |entry: &str| {
        let text = SPEC.replace("tasks: [zeroshot_retrieval], at_samples: [50%, 4k, 8064]", entry);
        let apart = if entry.contains("every_checkpoint") { "companions: {runner: other}\n" } else { "" };
        let text = format!("{text}{apart}");
        let spec = spec::parse(&Source::new("x.yaml", &text)).unwrap_or_else(|error| panic!("{:?}", error.mistakes));
        super::plan(&spec, &inputs).is_err()
    };
    assert!(!refused("tasks: zeroshot_retrieval") && refused("tasks: contrastive_loss"));
    assert!(!refused("tasks: contrastive_loss, evaluate: every_checkpoint"));
    assert!(refused("tasks: zeroshot_retrieval, evaluate: every_checkpoint"));
}
