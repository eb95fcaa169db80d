//! Rules of the recipe, as people write them.

use super::*;

fn recipe(recipe: &str) -> String {
    SMALL.replace("{global_batch: 128}", recipe)
}

/// Message, label and help of the first mistake, and the text that it points at.
fn said(text: &str) -> (String, String) {
    let error = read(text).expect_err("a mistake");
    (error.mistakes[0].message.clone(), format!("{:?}", error.mistakes[0]))
}

#[test]
fn what_a_rule_may_name() {
    let spec = good(&recipe("{global_batch: {rule: 2 * width, round: 32}, lr: {rule: '1 / steps'}}"));
    assert_eq!(spec.recipe.rules["global_batch"].round, 32);
    assert_eq!(spec.recipe_stated, ["global_batch", "lr"]);

    let (message, all) = said(&recipe("{global_batch: 128, lr: {rule: 1 / widht}}"));
    assert_eq!(message, "`recipe.lr.rule` names `widht`");
    assert!(all.contains("did you mean `width`?") && all.contains("names here: `width`, `layers`"), "{all}");
    let (message, all) = said(&recipe("{global_batch: {rule: steps / 2}}"));
    assert_eq!(message, "`recipe.global_batch.rule` names `steps`");
    assert!(all.contains("the batch can't be given by itself") && !all.contains("`global_batch`,"), "{all}");
    assert_eq!(
        said(&recipe("{global_batch: {rule: 2 * global_batch}}")).0,
        "`recipe.global_batch.rule` names `global_batch`"
    );
    assert_eq!(said(&recipe("{global_batch: 128, lr: {rule: 'axis:width'}}")).0, "`recipe.lr.rule` names `axis:width`");
    let (message, all) = said(&recipe("{global_batch: 128, lr: {rule: 1e-3 * (width / 64}}"));
    assert_eq!(message, "`recipe.lr.rule` can't be read at character 19");
    assert!(all.contains("a `)` is missing"), "{all}");
    assert_eq!(
        said(&recipe("{global_batch: 128, lr: {rule: '1', round: 2}}")).0,
        "`recipe.lr.round` is no key of this section"
    );
    assert_eq!(
        said(&recipe("{global_batch: 128, lr: {}}")).0,
        "`recipe.lr.rule` is missing: expression over the cell's quantities, with + - * / ^ ( ), `min(x, y)` and `max(x, y)`: `width`, `layers`, `text_width`, `text_layers`, `embed_dim`, `parameters`, `data_size`, `unique_samples`, `samples_seen`, `global_batch`, `steps`"
    );
    assert_eq!(said(&recipe("{global_batch: 128, eps: {rule: width}}")).0, "`recipe.eps` can't be a map");
    let long = format!("{{global_batch: 128, lr: {{rule: \"{}1\"}}}}", "1+".repeat(600));
    assert_eq!(said(&recipe(&long)).0, "`recipe.lr.rule` has too many characters");
    let (_, all) = said(&recipe("{global_batch: 128, lr: 1 / width}"));
    assert!(all.contains("a number, at least 0; or `{rule: "), "{all}");
}

#[test]
fn trunks_know_no_length() {
    let cooling =
        |rules: &str| recipe(&format!("{{global_batch: 128, warmup: 256, schedule: constant-cooldown, {rules}}}"));
    good(&cooling("lr: {rule: 1 / width + 1 / data_size + global_batch / 1e6}"));
    for (rule, name) in
        [("samples_seen^-0.5", "samples_seen"), ("1 / steps", "steps"), ("1 / unique_samples", "unique_samples")]
    {
        assert_eq!(
            bad(&cooling(&format!("lr: {{rule: {rule}}}"))),
            [format!(
                "`recipe.lr.rule` names `{name}`, which is another one for each length, and cells with \
                 `schedule: constant-cooldown` are the same training up to their cooldowns"
            )]
        );
    }
}
