//! `tune`, as people write it.

use super::*;

fn spec(tune: &str) -> String {
    format!(
        "{SMALL}evaluations:\n  - {{name: a, pool: p, tasks: contrastive_loss}}\n  - {{pool: q, tasks: zeroshot_retrieval}}\ntune: {tune}\n"
    )
}

#[test]
fn defaults_and_order() {
    let tune = good(&spec("{evaluation: a}")).tune.expect("it is there");
    assert_eq!(tune.factors, [0.25, 0.5, 1.0, 2.0, 4.0]);
    assert_eq!((tune.metric.as_str(), tune.seeds, tune.lower_is_better()), ("loss@1024", 1, true));
    let text = spec("{evaluation: q, metric: image_retrieval_recall@1, lr_factors: [3, 0.3, 1], seeds: 2}");
    let tune = good(&text).tune.expect("it is there");
    assert_eq!(tune.factors, [0.3, 1.0, 3.0]);
    assert_eq!((tune.evaluation_index(&good(&text)), tune.lower_is_better()), (Some(1), false));
}

#[test]
fn what_can_not_decide_is_refused() {
    let first = |text: &str| bad(text).remove(0);
    assert_eq!(first(&spec("{}")), "several evaluations could decide between learning rates");
    assert_eq!(first(&spec("{evaluation: b}")), "`evaluations` has no entry `b`");
    assert_eq!(
        first(&spec("{evaluation: q}")),
        "`q` is not measured by `loss@1024`, which is to decide between learning rates"
    );
    assert_eq!(first(&format!("{SMALL}tune: {{}}\n")), "nothing is measured that could decide between learning rates");
    assert_eq!(first(&spec("{evaluation: a, lr_factors: 2}")), "a ladder of one rung leaves nothing to choose");
    assert_eq!(
        first(&spec("{evaluation: a, lr_factors: [1, 1.005]}")),
        "1 and 1.005 are the same learning rate, as good as"
    );
    assert_eq!(first(&spec("{evaluation: a, lr_factors: [1, 0]}")), "`tune.lr_factors[1]` can't be `0`");
    assert_eq!(first(&spec("{evaluation: a, factors: [1, 2]}")), "`tune.factors` is no key of this section");
    let apart = spec("{evaluation: a}")
        .replace("tasks: contrastive_loss", "tasks: contrastive_loss, evaluate: every_checkpoint");
    assert_eq!(first(&apart), "`a` is measured beside training, and a ladder is decided by what its jobs measure");
    let long = spec("{evaluation: a}").replace("name: small", &format!("name: {}", "n".repeat(60)));
    assert!(first(&long).ends_with("would have a name of more than 64 characters"));
}
