//! The grid of a spec, expanded.

use std::sync::Arc;

use std::collections::HashSet;

use super::error::{Path, Place, Problem};
use super::quantity::grouped;
use super::{Axes, DataSize, Recipe, Spec};

/// One combination of values and the recipe that holds there.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Model as written.
    pub model: String,
    /// Samples to train on, as asked for.
    pub samples_seen: u64,
    /// Unique samples.
    pub data_size: DataSize,
    /// Seed.
    pub seed: u64,
    /// The recipe with this cell's overrides; one for all cells that have none.
    pub recipe: Arc<Recipe>,
    /// Which values of the spec it came from.
    pub origin: Origin,
}

/// Where a cell came from, so that errors can point there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Indices into the axes of the grid.
    Grid {
        /// Into `grid.model`.
        model: usize,
        /// Into `grid.samples_seen`.
        samples_seen: usize,
        /// Into `grid.data_size`.
        data_size: usize,
    },
    /// An entry of `include`.
    Include(usize),
}

impl Origin {
    /// Place of the cell's value on an axis.
    pub fn place(self, axis: &str) -> Path {
        match (self, axis) {
            (Origin::Grid { model, .. }, "model") => Path::keys(&["grid", "model"]).index(model),
            (Origin::Grid { samples_seen, .. }, "samples_seen") => Path::keys(&["grid", axis]).index(samples_seen),
            (Origin::Grid { data_size, .. }, "data_size") => Path::keys(&["grid", axis]).index(data_size),
            (Origin::Grid { .. }, axis) => Path::keys(&["grid", axis]),
            (Origin::Include(entry), axis) => Path::keys(&["include"]).index(entry).key(axis),
        }
    }
}

impl Cell {
    /// Whether nothing is trained.
    pub fn measures_only(&self) -> bool {
        self.samples_seen == 0
    }

    /// Samples of the job: whole global batches, as OpenCLIP's epochs are rounded up.
    pub fn samples_rounded(&self) -> u64 {
        whole_batches(self.samples_seen, self.recipe.global_batch)
    }
}

/// Samples of so many whole global batches that `samples` are seen.
pub fn whole_batches(samples: u64, global_batch: u64) -> u64 {
    samples.div_ceil(global_batch) * global_batch
}

/// Cells of one spec.
pub const CELLS_MAX: usize = 100_000;

/// The cells of a spec that [`super::parse`] has accepted: the grid without `exclude`, then `include`.
pub fn cells(spec: &Spec) -> Vec<Cell> {
    expand(spec, &mut Vec::new())
}

/// The cell that an entry added to `include` would be. What it trains on is a number of samples, as the entry says it.
pub fn included(spec: &Spec, model: &str, samples_seen: u64, data_size: u64) -> Cell {
    let mut cell = Cell {
        model: model.to_owned(),
        samples_seen,
        data_size: DataSize::Samples(data_size),
        seed: 0,
        recipe: Arc::new(spec.recipe.clone()),
        origin: Origin::Include(spec.include.len()),
    };
    for change in spec.overrides.iter().filter(|change| matches(&change.cells, &cell)).collect::<Vec<_>>() {
        change.set.apply(Arc::make_mut(&mut cell.recipe));
    }
    cell
}

/// The cells of a spec, with what is wrong about it.
pub(super) fn expand(spec: &Spec, problems: &mut Vec<Problem>) -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut room = CELLS_MAX;
    if size(&spec.grid).is_some_and(|size| size <= room) {
        room -= size(&spec.grid).unwrap_or_default();
        product(spec, &spec.grid, None, &mut cells);
    } else {
        problems.push(too_many(Path::keys(&["grid"])));
        return Vec::new();
    }

    for (index, exclude) in spec.exclude.iter().enumerate() {
        let before = cells.len();
        cells.retain(|cell| !matches(exclude, cell));
        if cells.len() == before {
            let place = Path::keys(&["exclude"]).index(index);
            let message = format!("`{place}` matches no cell of the grid");
            let label = "remove it, or name values that the grid has";
            problems.push(Problem::new(Place::Value(place), message, label));
        }
    }

    let key = |cell: &Cell| (cell.model.clone(), cell.samples_seen, cell.data_size, cell.seed);
    let mut known: HashSet<_> = cells.iter().map(key).collect();
    for (index, entry) in spec.include.iter().enumerate() {
        let place = Path::keys(&["include"]).index(index);
        let entry = filled(entry, &spec.grid);
        if let Some(axis) = missing_axis(&entry) {
            let message = format!("`{place}` names no `{axis}`, and there is no grid to take it from");
            problems.push(Problem::new(Place::Value(place), message, format!("add `{axis}`")));
            continue;
        }
        let Some(size) = size(&entry).filter(|size| *size <= room) else {
            problems.push(too_many(place));
            continue;
        };
        room -= size;
        let mut more = Vec::new();
        product(spec, &entry, Some(index), &mut more);
        let before = cells.len();
        cells.extend(more.into_iter().filter(|cell| known.insert(key(cell))));
        if cells.len() == before {
            let message = format!("`{place}` adds nothing: the grid or an entry above has these cells already");
            problems.push(Problem::new(Place::Value(place), message, "remove it, or change a value"));
        }
    }

    for (index, change) in spec.overrides.iter().enumerate() {
        let mut matched = false;
        for cell in cells.iter_mut().filter(|cell| matches(&change.cells, cell)) {
            change.set.apply(Arc::make_mut(&mut cell.recipe));
            matched = true;
        }
        if !matched && !cells.is_empty() {
            let place = Path::keys(&["overrides"]).index(index).key("where");
            let message = format!("`{place}` matches no cell");
            problems.push(Problem::new(Place::Value(place), message, "remove it, or name values that the grid has"));
        }
    }
    cells
}

/// Whether a cell has one of the values that `axes` names, on every axis it names.
pub(super) fn matches(axes: &Axes, cell: &Cell) -> bool {
    fn on<T: PartialEq>(values: &[T], value: &T) -> bool {
        values.is_empty() || values.contains(value)
    }
    on(&axes.samples_seen, &cell.samples_seen)
        && on(&axes.seed, &cell.seed)
        && on(&axes.data_size, &cell.data_size)
        && on(&axes.model, &cell.model)
}

fn too_many(place: Path) -> Problem {
    let message = format!("`{place}` makes too many cells");
    Problem::new(Place::Value(place), message, format!("at most {} cells a sweep", grouped(CELLS_MAX as u64)))
}

fn size(axes: &Axes) -> Option<usize> {
    let lengths = [axes.model.len(), axes.samples_seen.len(), axes.data_size.len(), axes.seed.len()];
    lengths.into_iter().try_fold(1_usize, usize::checked_mul)
}

fn filled(entry: &Axes, grid: &Axes) -> Axes {
    fn or<T: Clone>(own: &[T], else_: &[T]) -> Vec<T> {
        if own.is_empty() { else_.to_vec() } else { own.to_vec() }
    }
    let seed = or(&entry.seed, &grid.seed);
    Axes {
        model: or(&entry.model, &grid.model),
        samples_seen: or(&entry.samples_seen, &grid.samples_seen),
        data_size: or(&entry.data_size, &grid.data_size),
        seed: if seed.is_empty() { vec![0] } else { seed },
    }
}

fn missing_axis(axes: &Axes) -> Option<&'static str> {
    match axes {
        Axes { model, .. } if model.is_empty() => Some("model"),
        Axes { samples_seen, .. } if samples_seen.is_empty() => Some("samples_seen"),
        Axes { data_size, .. } if data_size.is_empty() => Some("data_size"),
        _ => None,
    }
}

fn product(spec: &Spec, axes: &Axes, include: Option<usize>, cells: &mut Vec<Cell>) {
    let recipe = Arc::new(spec.recipe.clone());
    for (model_index, model) in axes.model.iter().enumerate() {
        for (samples_index, samples_seen) in axes.samples_seen.iter().enumerate() {
            for (size_index, data_size) in axes.data_size.iter().enumerate() {
                let origin = include.map_or(
                    Origin::Grid { model: model_index, samples_seen: samples_index, data_size: size_index },
                    Origin::Include,
                );
                cells.extend(axes.seed.iter().map(|seed| Cell {
                    model: model.clone(),
                    samples_seen: *samples_seen,
                    data_size: *data_size,
                    seed: *seed,
                    recipe: Arc::clone(&recipe),
                    origin,
                }));
            }
        }
    }
}
