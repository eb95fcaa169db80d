//! What the classes of a pool are: of each image, their names and prompts, and whether the pools of one evaluation mean
//! the same by them.

use pool::{Dataset, DatasetType};
use protocol::EvaluationTask;

use super::{EvaluateError, Labels};

/// Classes of a layer at most, where no class names say how many there are.
const UNNAMED_CLASSES_MAX: usize = 100_000;

/// Right classes of the pairs, or which of names and classes is missing.
pub(super) fn labels_of(dataset: &str, data: &Dataset) -> Result<Labels, EvaluateError> {
    let classes = data.class_names().len();
    if classes == 0 {
        return Err(lacking(dataset, EvaluationTask::ZeroshotClassification, data, "class names"));
    }
    if data.dataset_type() == DatasetType::Multilabel {
        let is_of = |i: usize| move |class: usize| data.classes(i).unwrap_or_default().contains(&(class as u32));
        return Ok(Labels::Several((0..data.len()).flat_map(|i| (0..classes).map(is_of(i))).collect()));
    }
    let labels = one_class_each(data);
    if labels.is_empty() {
        return Err(lacking(dataset, EvaluationTask::ZeroshotClassification, data, "classes"));
    }
    Ok(Labels::One(labels))
}

/// (image, class) of the images that have one, for a task that trains on them.
pub(super) fn classes_of(
    dataset: &str,
    task: EvaluationTask,
    data: &Dataset,
) -> Result<Vec<(usize, u32)>, EvaluateError> {
    let labels = one_class_each(data);
    if labels.is_empty() {
        return Err(lacking(dataset, task, data, "image with one class"));
    }
    Ok(labels)
}

/// Whether the pools of a task that trains have classes, mean the same by them, and have no more than a layer can have.
pub(super) fn check_classes(dataset: &str, task: EvaluationTask, pools: &[&Dataset]) -> Result<(), EvaluateError> {
    let named: Vec<&Dataset> = pools.iter().copied().filter(|data| !data.class_names().is_empty()).collect();
    for pair in named.windows(2) {
        let (names, others) = (pair[0].class_names(), pair[1].class_names());
        let Some(at) = (0..names.len().max(others.len())).find(|at| names.get(*at) != others.get(*at)) else {
            continue;
        };
        let shown = |data: &Dataset| {
            let name = data.class_names().get(at).map_or("missing".to_owned(), |name| format!("`{name}`"));
            format!("{name} in pool `{}`", folder(data))
        };
        return Err(EvaluateError::ClassNames {
            dataset: dataset.to_owned(),
            task: task.name(),
            line: at + 1,
            one: shown(pair[0]),
            other: shown(pair[1]),
        });
    }
    for data in pools {
        let labels = classes_of(dataset, task, data)?;
        check_highest((dataset, task), data, &labels, named.first().copied())?;
    }
    Ok(())
}

/// Fails for a class that has no name in the pool `named`, or without such a pool for one that no set has.
fn check_highest(
    (dataset, task): (&str, EvaluationTask),
    data: &Dataset,
    labels: &[(usize, u32)],
    named: Option<&Dataset>,
) -> Result<(), EvaluateError> {
    let most = named.map_or(UNNAMED_CLASSES_MAX, |named| named.class_names().len());
    let highest = labels.iter().map(|(_, class)| *class).max().unwrap_or_default();
    if (highest as usize) < most {
        return Ok(());
    }
    let limit = match named {
        Some(named) => format!("the last class in the `classnames.txt` of `{}` is {}", folder(named), most - 1),
        None => format!("classes without names end with {}", most - 1),
    };
    let (dataset, task) = (dataset.to_owned(), task.name());
    Err(EvaluateError::Class { dataset, task, pool: folder(data), class: highest, limit })
}

fn folder(data: &Dataset) -> String {
    data.info().dir.display().to_string()
}

fn one_class_each(data: &Dataset) -> Vec<(usize, u32)> {
    (0..data.len()).filter_map(|i| Some((i, data.class(i)?))).collect()
}

pub(super) fn lacking(dataset: &str, task: EvaluationTask, data: &Dataset, missing: &'static str) -> EvaluateError {
    EvaluateError::NoClasses { dataset: dataset.to_owned(), task: task.name(), pool: folder(data), missing }
}

/// Every class under every template, class by class.
pub(super) fn prompt_texts(dataset: &str, planned: &[String], data: &Dataset) -> Result<Vec<String>, EvaluateError> {
    let bare = ["{}".to_owned()];
    let templates = match (planned, data.templates()) {
        ([], []) => &bare[..],
        ([], of_pool) => of_pool,
        (planned, _) => planned,
    };
    if let Some(template) = templates.iter().find(|t| !t.contains("{}") && !t.contains("{c}")) {
        return Err(EvaluateError::Template { dataset: dataset.to_owned(), template: template.clone() });
    }
    let filled =
        |name: &String| templates.iter().map(|t| t.replace("{c}", name).replace("{}", name)).collect::<Vec<_>>();
    Ok(data.class_names().iter().flat_map(filled).collect())
}
