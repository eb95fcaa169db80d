//! `sweep plot`: the figures of an analysis, as SVG and PNG.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::analysis::{Law, Loaded, Rows, fit_and_store, load, no_fit};
use super::output::{Exit, Failure, data, say};
use super::place::Place;
use super::search::{Search, end};
use crate::fit::{Fit, Observation, Options, Points, fit};
use crate::report::analysis::{Drawing, Family, Kind, Material, Subject, Target, Undrawable, comparison, draw};
use crate::report::file_name;
use crate::report::number::compact;
use crate::store::Store;
use crate::store::study::Study;

/// Options of `sweep plot`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
law        the law with its 95 % band over its points      residuals   against N, D, U and C
profile    profile likelihood of the parameters            pairs       resamples, two parameters at a time
policies   what the choice of points does to a forecast    models      laws by objectives, by held-out error
backtest   forecasts of the largest run as data grow       budget      width of a forecast against the study's cost
isoflop    best N at equal compute                         frontier    best N, D and U for a compute
comparison two sweeps side by side (--against)
isoflop and frontier need a law of N and D, for example --law chinchilla. What can't be drawn is said, and the others are
drawn; exit code 1 if none is.
Example: sweep plot openclip-2022 law policies --metric imagenet1k/acc1 --points bins:5 --model ViT-G-14 --samples 68e9")]
pub(super) struct Args {
    /// Name of the sweep.
    sweep: String,
    /// What to draw.
    #[arg(required = true, value_name = "KIND", value_parser = kinds())]
    kinds: Vec<Kind>,
    #[command(flatten)]
    rows: Rows,
    #[command(flatten)]
    law: Law,
    #[command(flatten)]
    search: Search,
    /// Rows for which this SQL condition holds are kept out of the fit and drawn open.
    #[arg(long, value_name = "SQL")]
    hold_out: Option<String>,
    /// The sweep to compare with.
    #[arg(long, value_name = "SWEEP")]
    against: Option<String>,
    /// Which points the law of the other sweep goes through.
    #[arg(long, default_value = "all", value_name = "POLICY")]
    against_points: Points,
    /// A further metric with a panel of its own in `comparison`, may be repeated.
    #[arg(long, value_name = "DATASET/METRIC")]
    also: Vec<String>,
    /// The job that is forecast [default: ten times the compute of the largest run].
    #[command(flatten)]
    place: Place,
    /// What the forecast turned out to be, or was published as, for example 81.92:published; in % for accuracies.
    #[arg(long, value_name = "VALUE[:NAME]", value_parser = reference)]
    reference: Option<(f64, String)>,
    /// Folder, or a file that ends in .svg or .png [default: plots/SWEEP].
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

fn kinds() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::as_str))
        .map(|name| Kind::ALL.into_iter().find(|kind| kind.as_str() == name).expect("only names of kinds are possible"))
}

fn reference(text: &str) -> Result<(f64, String), String> {
    let (value, name) = text.split_once(':').unwrap_or((text, "reference"));
    match value.trim().parse::<f64>() {
        Ok(value) if value.is_finite() => Ok((value, name.trim().to_owned())),
        _ => Err("a number is wanted, with a name after `:` if it has one".to_owned()),
    }
}

/// Where pictures go.
enum Destination {
    Folder(PathBuf),
    File(PathBuf),
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let destination = destination(&args)?;
    let store = Store::connect_to_read().await?;
    let main = Panel::read(&store, &args, args.rows.metric.clone()).await?;
    let mut further = Vec::new();
    if args.kinds.contains(&Kind::Comparison) {
        for metric in &args.also {
            further.push(Panel::read(&store, &args, Some(metric.clone())).await?);
        }
    }
    let mut drawn = 0;
    for &kind in &args.kinds {
        let drawing = if kind == Kind::Comparison && !further.is_empty() {
            let all: Vec<Material<'_>> = std::iter::once(&main).chain(&further).map(Panel::material).collect();
            comparison::draw_several(&all)
        } else {
            draw(kind, main.material())
        };
        match drawing {
            Ok(drawing) => {
                drawn += 1;
                write(&destination, kind, &drawing)?;
                drawing.words.iter().for_each(|words| say(&format!("{kind}: {words}")));
            }
            Err(error) => say(&undrawable(kind, &error)),
        }
    }
    let exit = if drawn > 0 { Exit::Done } else { Exit::Failed };
    Ok(further.iter().chain([&main]).fold(exit, |exit, panel| end(&panel.options.method, exit)))
}

fn undrawable(kind: Kind, error: &Undrawable) -> String {
    format!("{kind}: not drawn: {error}\n  hint: {}", error.way_out())
}

fn destination(args: &Args) -> Result<Destination, Failure> {
    let Some(path) = &args.output else {
        return Ok(Destination::Folder(PathBuf::from("plots").join(file_name(&args.sweep))));
    };
    let is_file = path.extension().is_some_and(|end| end == "svg" || end == "png");
    match (is_file, args.kinds.as_slice()) {
        (true, [_]) => Ok(Destination::File(path.clone())),
        (true, _) => {
            Err(Failure::bad_input(format!("{} can hold one figure, not {}", path.display(), args.kinds.len()))
                .hint("name a folder, or one kind"))
        }
        (false, _) => Ok(Destination::Folder(path.clone())),
    }
}

fn write(destination: &Destination, kind: Kind, drawing: &Drawing) -> Result<(), Failure> {
    let png = || drawing.picture.png().map_err(|error| Failure::environment(error.to_string()));
    let files = match destination {
        Destination::File(path) if path.extension().is_some_and(|end| end == "png") => vec![(path.clone(), png()?)],
        Destination::File(path) => vec![(path.clone(), drawing.picture.standalone().into_bytes())],
        Destination::Folder(folder) => vec![
            (folder.join(format!("{kind}.svg")), drawing.picture.standalone().into_bytes()),
            (folder.join(format!("{kind}.png")), png()?),
        ],
    };
    for (path, bytes) in files {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, bytes)).map_err(|error| {
            Failure::environment(format!("can't write {}", path.display()))
                .because(&error)
                .hint("choose another with `-o`")
        })?;
        data(&path.display().to_string());
    }
    Ok(())
}

/// One metric, read and fitted.
struct Panel {
    subject: Subject,
    loaded: Loaded,
    held_out: Vec<Observation>,
    options: Options,
    fit: Fit,
    target: Target,
    against: Option<Family>,
}

impl Panel {
    async fn read(store: &Store, args: &Args, metric: Option<String>) -> Result<Panel, Failure> {
        let mut rows = Rows { metric, ..args.rows.clone() };
        let asked = rows.condition.clone().unwrap_or_else(|| "true".to_owned());
        if let Some(held) = &args.hold_out {
            rows.condition = Some(format!("({asked}) AND NOT coalesce(({held}), false)"));
        }
        let loaded = load(store, &args.sweep, &rows).await?;
        rows.metric = Some(loaded.metric.name());
        rows.compute = loaded.observations.first().map(|row| row.convention).or(rows.compute);
        let held_out = match &args.hold_out {
            None => Vec::new(),
            Some(held) => {
                let held = Rows { condition: Some(format!("({asked}) AND ({held})")), ..rows.clone() };
                load(store, &args.sweep, &held).await?.observations
            }
        };
        let options = args.law.options(&loaded.metric, args.search.method());
        let (fitted, _) = fit_and_store(store, &loaded, &options).await?;
        let study = store.study_read(&args.sweep).await?;
        let subject = subject(&args.sweep, &loaded.metric.dataset, &loaded.metric.metric, study.as_ref());
        let target = target(&args.place, &loaded.observations, args.reference.clone())?;
        let against = match &args.against {
            None => None,
            Some(other) => Some(family(store, other, &rows, &options, args.against_points).await?),
        };
        Ok(Panel { subject, loaded, held_out, options, fit: fitted, target, against })
    }

    fn material(&self) -> Material<'_> {
        Material {
            subject: &self.subject,
            observations: &self.loaded.observations,
            held_out: &self.held_out,
            options: &self.options,
            fit: &self.fit,
            target: &self.target,
            against: self.against.as_ref(),
        }
    }
}

/// Another sweep's rows of a metric, fitted by the same law.
pub(super) async fn family(
    store: &Store,
    sweep: &str,
    rows: &Rows,
    options: &Options,
    points: Points,
) -> Result<Family, Failure> {
    // The condition was written for the first sweep's rows: the other is compared as a whole.
    let loaded = load(store, sweep, &Rows { condition: None, ..rows.clone() }).await?;
    let fitted = fit(&loaded.observations, &Options { points, ..options.clone() }).map_err(|error| no_fit(&error))?;
    let study = store.study_read(sweep).await?;
    let subject = subject(sweep, &loaded.metric.dataset, &loaded.metric.metric, study.as_ref());
    Ok(Family { name: sweep.to_owned(), subject, fit: fitted })
}

/// The job that is forecast.
pub(super) fn target(place: &Place, rows: &[Observation], reference: Option<(f64, String)>) -> Result<Target, Failure> {
    if place.model.is_none() && place.parameters.is_none() && place.samples.is_none() {
        let beyond = Target::beyond(rows).ok_or_else(|| Failure::failed("there are no rows to fit a law to"))?;
        return Ok(Target { reference, ..beyond });
    }
    let job = place.job(rows)?;
    let model = job.model.clone().unwrap_or_else(|| format!("N = {}", compact(job.parameters)));
    let name = format!("{model} on {} samples", compact(job.samples_seen));
    Ok(Target { name, input: job.input(), reference })
}

/// A metric with the names of the training sets: the pool's, with the number of unique samples where that differs
/// within it.
pub(super) fn subject(sweep: &str, dataset: &str, metric: &str, study: Option<&Study>) -> Subject {
    let mut subject = Subject::new(sweep, dataset, metric);
    let Some(study) = study else { return subject };
    let mut sizes: HashMap<&str, Vec<i64>> = HashMap::new();
    for job in &study.jobs {
        if let (Some(pool), Some(size)) = (&job.pool, job.data_size) {
            let sizes = sizes.entry(pool).or_default();
            if !sizes.contains(&size) {
                sizes.push(size);
            }
        }
    }
    for job in &study.jobs {
        let Some(pool) = &job.pool else { continue };
        let size = job.data_size.map_or(f64::NAN, |size| size as f64);
        let several = sizes.get(pool.as_str()).is_some_and(|sizes| sizes.len() > 1);
        let name = match (several, sizes.len()) {
            (true, 1) => format!("{} unique", compact(size)),
            (true, _) => format!("{pool}, {}", compact(size)),
            (false, _) => pool.clone(),
        };
        subject.data.insert(job.job_key.clone(), (name, size));
    }
    subject
}
