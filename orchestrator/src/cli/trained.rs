//! What a checkpoint's job was trained as: by its spec, or by what an imported run says of itself.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::{DataSource, JobSpec, NamedModel, Recipe, RunnerIdentity};

use super::output::Failure;
use crate::plan::{Inputs, preprocess_of_run};
use crate::spec;
use crate::store::CheckpointOf;

/// The spec of a checkpoint's job; of an imported one, its model, by its name or `model`, and how that saw images.
pub(super) fn trained_as(model: Option<&str>, found: &CheckpointOf, inputs: &Inputs) -> Result<JobSpec, Failure> {
    if let Some(spec) = &found.spec {
        return Ok(spec.clone());
    }
    let name = model.unwrap_or(&found.model);
    let mut model = if spec::is_model_file(name) {
        let config = crate::plan::inputs::model_file(Path::new(""), name);
        let config = config.map_err(|error| Failure::bad_input(error.to_string()))?;
        NamedModel { name: found.model.clone(), config }
    } else {
        spec::shipped(name).ok_or_else(|| {
            Failure::bad_input(format!("model `{name}` of job {} is not known here", &found.job_key[..12]))
                .hint("name its configuration: `--model FILE.json`; `sweep model` lists those with a name")
        })?
    };
    let nothing = BTreeMap::new();
    let said = found.sees.as_ref().unwrap_or(&nothing);
    let refused = |reason: String| {
        Failure::bad_input(format!("job {} was trained otherwise than can be measured here: {reason}", &found.job_key[..12]))
            .hint(
                "measure its file by `sweep evaluate --checkpoint FILE` with an `open_clip_config.json` beside it that says \
                 what it is",
            )
    };
    let preprocess = preprocess_of_run(said).map_err(refused)?;
    let number = |name: &str| said.get(name).and_then(|value| value.parse().ok());
    model.config = spec::sized_for(model.config, number("force_image_size"), number("force_context_length"));
    model.config.quick_gelu |= said.get("force_quick_gelu").is_some_and(|value| value == "True");
    if let Some(problem) = model.config.check().first() {
        return Err(refused(format!("`{name}` with its arguments can't be built: {problem}")));
    }
    let (name, version) = (inputs.runner.name.clone(), inputs.runner.version.clone());
    Ok(JobSpec {
        runner: RunnerIdentity { name, version },
        model,
        init: None,
        data: DataSource { pool: String::new(), path: "".into(), digest: String::new() },
        data_size: 1,
        skipped_max: None,
        samples_seen: 0,
        seed: 0,
        recipe: Recipe { preprocess, ..Recipe::of_nothing() },
        evaluations: Vec::new(),
    })
}
