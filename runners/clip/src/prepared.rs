//! Data made ready for training: opened, encoded, and kept from one job to the next, so that a runner that serves many
//! jobs does that once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pool::{Dataset, Keep, OpenOptions, PoolInfo};
use protocol::{Augmentation, DataSource, DataUsed, EvaluationPlan, Job, Preprocess, Recipe, TextConfig};

use crate::augment::Patches;
use crate::evaluate::{FineTuning, HeldOut, Probe};
use crate::report;
use crate::run::RunError;
use crate::tokenizer::{Captions, Tokenizer};

/// Pairs of all data sets that are kept; the last one is kept whatever its size.
const PAIRS_MAX: usize = 4_000_000;

/// Bytes of shards that take longer to hash than a moment.
const TOLD_BYTES: u64 = 1 << 30;

/// What earlier jobs of this process have made ready.
#[derive(Default)]
pub struct Prepared {
    tokenizers: Kept<Tokenizer>,
    training: Kept<Pairs>,
    held_out: Kept<HeldOut>,
}

/// Pairs to train on.
pub struct Pairs {
    /// Images.
    pub images: Arc<Dataset>,
    /// Captions of those images.
    pub captions: Arc<Captions>,
}

impl Pairs {
    /// How many they are, and what was passed over.
    pub fn used(&self) -> DataUsed {
        let skipped = self.images.skipped_kinds().into_iter().map(|(kind, count)| (kind.to_owned(), count));
        DataUsed { pairs: self.images.len() as u64, skipped: skipped.collect() }
    }
}

impl Prepared {
    /// The pairs that a job trains on.
    pub fn pairs(&mut self, job: &Job) -> Result<Arc<Pairs>, RunError> {
        let spec = &job.spec;
        let text = &spec.model.config.text_cfg;
        let info = planned_pool(job, &spec.data)?;
        let keep = kept_for(spec.recipe.augmentation);
        let key = format!(
            "{} {} {} {} {:?} {:?} {keep:?} {}",
            info.dir.display(),
            info.identity.digest,
            spec.data_size,
            spec.model.config.vision_cfg.image_size,
            spec.recipe.alpha,
            spec.recipe.preprocess,
            of_text(text)
        );
        let tokenizer = self.tokenizer(job)?;
        let pairs = self.training.get(key, || {
            let images = Arc::new(open_pool(job, &spec.data, &info, Some(spec.data_size), keep)?);
            let texts = (0..images.len()).map(|i| images.caption(i));
            let captions = Arc::new(Captions::encode(&tokenizer, texts, text.context_length as usize)?);
            Ok((images.len(), Pairs { images, captions }))
        })?;
        enough(&spec.data, &pairs.images, spec.data_size, spec.most_skipped())?;
        Ok(pairs)
    }

    /// The data set of one of a job's evaluations.
    pub fn held_out(&mut self, job: &Job, plan: &EvaluationPlan) -> Result<Arc<HeldOut>, RunError> {
        let (vision, text) = (&job.spec.model.config.vision_cfg, &job.spec.model.config.text_cfg);
        let pools = plan.sources().map(|source| Ok((source, planned_pool(job, source)?)));
        let pools: Vec<_> = pools.collect::<Result<_, RunError>>()?;
        let info = &pools[0].1;
        let key = format!(
            "{} {} {} {} {:?} {:?} {} {:?} {:?} {} {:?} {:?}",
            info.dir.display(),
            info.identity.digest,
            vision.image_size,
            vision.patch_size,
            job.spec.recipe.alpha,
            job.spec.recipe.preprocess,
            of_text(text),
            plan.tasks,
            plan.templates,
            plan.dataset,
            plan.probe,
            plan.fine_tuning
        );
        let tokenizer = self.tokenizer(job)?;
        self.held_out.get(key, || {
            let open = |source: &DataSource, keep| {
                let (_, info) = pools.iter().find(|(known, _)| *known == source).expect("all pools of the plan");
                measured_pool(job, source, info, keep)
            };
            let data = open(&plan.data, Keep::Square)?;
            let probe = plan.probe.as_ref().map(|probe| {
                let train = open(&probe.train, Keep::Square)?;
                let validation = probe.validation.as_ref().map(|source| open(source, Keep::Square)).transpose()?;
                Ok::<_, RunError>(Probe { plan: probe.clone(), train, validation })
            });
            let fine_tuning = plan.fine_tuning.as_ref().map(|tuning| {
                let train = open(&tuning.train, kept_for(tuning.augmentation))?;
                Ok::<_, RunError>(FineTuning { plan: tuning.clone(), train })
            });
            let (probe, fine_tuning) = (probe.transpose()?, fine_tuning.transpose()?);
            let recipe = &job.spec.recipe;
            let patches = Patches::new(vision.image_size as usize, vision.patch_size as usize, &recipe.preprocess);
            let of_probe = probe.as_ref().map_or(0, |probe| probe.train.len());
            let pairs = data.len() + of_probe + fine_tuning.as_ref().map_or(0, |tuning| tuning.train.len());
            let trained = (probe, fine_tuning);
            Ok((pairs, HeldOut::new(plan, data, trained, patches, &tokenizer, text.context_length as usize)?))
        })
    }

    /// The tokenizer of a job's text tower.
    pub fn tokenizer(&mut self, job: &Job) -> Result<Arc<Tokenizer>, RunError> {
        let text = &job.spec.model.config.text_cfg;
        self.tokenizers.get(of_text(text), || Ok((0, Tokenizer::new(text, &job.base_dir)?)))
    }
}

/// What of an image is kept for an augmentation: a random crop is cut from the original.
fn kept_for(augmentation: Augmentation) -> Keep {
    match augmentation {
        Augmentation::RandomResizedCrop => Keep::Original,
        Augmentation::None | Augmentation::FlipShift => Keep::Square,
    }
}

/// All of a pool that is measured with. Fewer candidates make retrieval easier, so the same share of its pairs may be
/// missing as in training.
fn measured_pool(job: &Job, source: &DataSource, info: &Arc<PoolInfo>, keep: Keep) -> Result<Dataset, RunError> {
    let data = open_pool(job, source, info, None, keep)?;
    let planned = data.info().identity.counts.pairs;
    let share = u128::from(job.spec.most_skipped()) * u128::from(planned) / u128::from(job.spec.data_size.max(1));
    enough(source, &data, planned, (share as u64).max(planned / 100))?;
    Ok(data)
}

/// Everything that token ids and their layout depend on.
fn of_text(text: &TextConfig) -> String {
    let TextConfig { context_length, vocab_size, hf_tokenizer_name, tokenizer_sha256, tokenizer_kwargs, .. } = text;
    let TextConfig { pool_type, eos_id, no_causal_mask, embed_cls, .. } = text;
    format!(
        "{context_length} {vocab_size} {hf_tokenizer_name:?} {tokenizer_sha256:?} {tokenizer_kwargs:?} \
         {pool_type:?} {eos_id} {no_causal_mask} {embed_cls}"
    )
}

/// Fails where more than `most` of the planned pairs can't be used.
fn enough(source: &DataSource, data: &Dataset, planned: u64, most: u64) -> Result<(), RunError> {
    let pairs = data.len() as u64;
    if pairs + most >= planned {
        return Ok(());
    }
    let reasons: Vec<String> = data.skipped_kinds().iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
    Err(RunError::Skipped { pool: source.pool.clone(), pairs, planned, most, skipped: reasons.join(", ") })
}

/// Values by key, the last used at the end, each with its number of pairs.
struct Kept<T>(Vec<(String, usize, Arc<T>)>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept(Vec::new())
    }
}

impl<T> Kept<T> {
    fn get(&mut self, key: String, make: impl FnOnce() -> Result<(usize, T), RunError>) -> Result<Arc<T>, RunError> {
        let entry = if let Some(at) = self.0.iter().position(|(known, ..)| *known == key) {
            self.0.remove(at)
        } else {
            let (pairs, value) = make()?;
            (key, pairs, Arc::new(value))
        };
        let value = Arc::clone(&entry.2);
        self.0.push(entry);
        while self.0.len() > 1 && self.0.iter().map(|(_, pairs, _)| pairs).sum::<usize>() > PAIRS_MAX {
            self.0.remove(0);
        }
        Ok(value)
    }
}

/// The pool, whose digest is to be that of the plan. Looked at anew for every job: a pool may change.
fn planned_pool(job: &Job, source: &DataSource) -> Result<Arc<PoolInfo>, RunError> {
    let folder = job.base_dir.join(&source.path);
    let mut told = false;
    let mut tell = |_, total| {
        if !std::mem::replace(&mut told, true) && total > TOLD_BYTES {
            report::say(format_args!("pool `{}`: hashing {:.1} GB of shards", source.pool, total as f64 / 1e9));
        }
    };
    let info = pool::inspect(&folder, Some(&elsewhere(job)), &mut tell)?;
    let identity = &info.identity;
    if identity.digest != source.digest {
        let changed = identity.changed();
        return Err(RunError::PoolChanged {
            pool: source.pool.clone(),
            shards: if changed.is_empty() { String::new() } else { format!(" (in {})", changed.join(", ")) },
            found: identity.digest.clone(),
            planned: source.digest.clone(),
        });
    }
    Ok(Arc::new(info))
}

/// Where to keep what can't be kept beside the shards.
fn elsewhere(job: &Job) -> PathBuf {
    job.base_dir.join(".sweep/pools")
}

fn open_pool(
    job: &Job,
    source: &DataSource,
    info: &Arc<PoolInfo>,
    limit: Option<u64>,
    keep: Keep,
) -> Result<Dataset, RunError> {
    let image_size = job.spec.model.config.vision_cfg.image_size as u32;
    let cache_dir = (!can_cache(&info.dir)).then(|| elsewhere(job));
    let Recipe { alpha, preprocess: Preprocess { interpolation, resize_mode, .. }, .. } = job.spec.recipe;
    let cache_bytes = OpenOptions::default().cache_bytes;
    let mut options =
        OpenOptions { image_size, keep, alpha, interpolation, resize_mode, limit, cache_dir, cache_bytes };
    let data = match Dataset::of(info, &options) {
        // All of a pool means all that is good of it: a bad image among many is counted and left out.
        Err(pool::Error::TooFew { asked, found, skipped, .. }) if found > 0 && found + skipped as u64 >= asked => {
            options.limit = None;
            Dataset::of(info, &options)?
        }
        opened => opened?,
    };
    if data.is_streamed() {
        let most = options.cache_bytes as f64 / f64::from(1 << 30);
        report::say(format_args!(
            "pool `{}`: its pixels are more than the {most:.0} GiB of a cache, so images are decoded each time they are read",
            source.pool
        ));
    }
    if !data.skipped().is_empty() {
        let first = &data.skipped()[0];
        report::say(format_args!(
            "pool `{}`: {} samples skipped, the first `{}`: {}",
            source.pool,
            data.skipped().len(),
            first.key,
            first.reason
        ));
    }
    Ok(data)
}

/// Whether decoded pixels can be kept beside the shards: not on a read-only mount or in somebody else's folder.
fn can_cache(folder: &Path) -> bool {
    let cache = folder.join(".cache");
    let place = if cache.is_dir() { cache } else { folder.to_owned() };
    create_and_remove(&place).is_ok()
}

/// Whether a file can be made in `place`, by making one.
fn create_and_remove(place: &Path) -> std::io::Result<()> {
    let probe = place.join(format!(".sweep-{}", std::process::id()));
    std::fs::File::create(&probe)?;
    std::fs::remove_file(&probe)
}
