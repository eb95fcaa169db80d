//! `sweep-pool`: packs package archives into pools and says what a pool holds.

// A command's own output; the library prints nothing.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

mod files;
mod progress;

use clap::{Parser, Subcommand};
use pool::pack::{self, Outcome, RecipeFile};
use pool::{Dataset, Keep, OpenOptions};

/// Packs image-text pairs into WebDataset shards and inspects pools.
#[derive(Parser)]
#[command(name = "sweep-pool", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Pack the pools of a recipe, doing nothing if they are there already; or images that lie in folders or are listed
    /// in a table.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Pack {
        /// Recipe, e.g. `experiments/pools/emoji.json`.
        #[arg(required = true)]
        recipe: Option<PathBuf>,
        /// Folder with the package archives (.tgz).
        #[arg(long, required = true)]
        archives: Option<PathBuf>,
        /// Folder that gets one folder per pool.
        #[arg(long, required = true)]
        out: Option<PathBuf>,
        #[command(subcommand)]
        from: Option<files::Pack>,
    },
    /// Lay a pool out for CLIP_benchmark, which then reads it as `--dataset wds/NAME --dataset_root OUT`: links to its
    /// shards, and the files that it wants beside them.
    Benchmark(files::Benchmark),
    /// Exit 0 if the pools of a recipe are there already, 1 if not. Needs no archive.
    Check {
        /// Recipe.
        recipe: PathBuf,
        /// Folder with one folder per pool.
        #[arg(long)]
        out: PathBuf,
    },
    /// List the archives that a recipe pins: package, file, sha256, tab-separated.
    Sources {
        /// Recipe.
        recipe: PathBuf,
    },
    /// Hash a pool where it lies and write what it holds to `sweep.index` beside its shards, for who plans with it on
    /// another machine or can't read it all. Call it again when the pool has changed: only what is new is hashed.
    Index {
        /// Folder of WebDataset shards.
        dir: PathBuf,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Decode a whole pool and say what is in it and what is skipped.
    Inspect {
        /// Folder of WebDataset shards.
        dir: PathBuf,
        /// Side of the images, pixels.
        #[arg(long, default_value_t = 32)]
        image_size: u32,
        /// Keep originals, as training with `random_resized_crop` does, and say how large they are.
        #[arg(long)]
        original: bool,
        /// Where decoded pixels are kept; default: `.cache` in the pool's folder.
        #[arg(long)]
        cache_dir: Option<PathBuf>,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Pack { from: Some(from), .. } => files::pack(from)?,
        Command::Pack { recipe: Some(recipe), archives: Some(archives), out: Some(out), .. } => {
            pack_recipe(&recipe, &archives, &out)?;
        }
        Command::Pack { .. } => unreachable!("clap asks for a recipe, its archives and a folder"),
        Command::Benchmark(benchmark) => files::benchmark(&benchmark)?,
        Command::Check { recipe, out } => {
            let Some(folders) = pack::packed(&RecipeFile::read(&recipe)?, &out) else { return Ok(ExitCode::from(1)) };
            for folder in folders {
                println!("{}: there already, from this recipe", folder.display());
            }
        }
        Command::Sources { recipe } => {
            for source in RecipeFile::read(&recipe)?.sources() {
                println!("{}\t{}\t{}", source.package, source.file, source.sha256);
            }
        }
        Command::Index { dir, json } => index(&dir, json)?,
        Command::Inspect { dir, image_size, original, cache_dir, json } => {
            let keep = if original { Keep::Original } else { Keep::Square };
            inspect(&dir, &OpenOptions { image_size, keep, cache_dir, ..OpenOptions::default() }, json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn pack_recipe(recipe: &Path, archives: &Path, out: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    let progress = |line: &str| eprintln!("{:6.1} s  {line}", started.elapsed().as_secs_f64());
    match pack::pack(&RecipeFile::read(recipe)?, archives, out, &progress)? {
        Outcome::Unchanged(folders) => {
            for folder in folders {
                println!("{}: there already, from this recipe", folder.display());
            }
        }
        Outcome::Packed(pools) => {
            for (folder, samples) in pools {
                println!("{}: {samples} pairs", folder.display());
            }
        }
    }
    Ok(())
}

fn index(dir: &Path, json: bool) -> anyhow::Result<()> {
    let identity = shards::write_index(dir, &mut progress::hashing()).map_err(pool::Error::from)?;
    let counts = &identity.counts;
    let path = dir.join(shards::INDEX);
    if json {
        let report = serde_json::json!({
            "index": path, "digest": identity.digest, "shards": identity.shards.len(),
            "pairs": counts.pairs, "skipped_by_kind": counts.skipped,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!(
        "{}: {} pairs in {} shards, digest {}",
        path.display(),
        counts.pairs,
        identity.shards.len(),
        identity.digest
    );
    for (kind, count) in &counts.skipped {
        println!("not used: {count} ({kind})");
    }
    Ok(())
}

fn inspect(dir: &Path, options: &OpenOptions, json: bool) -> anyhow::Result<()> {
    let info = pool::inspect(dir, options.cache_dir.as_deref(), &mut progress::hashing())?;
    let dataset = Dataset::of(&Arc::new(info), options)?;
    let info = dataset.info();
    let skipped = dataset.skipped();
    let kinds = dataset.skipped_kinds();
    if json {
        let skipped: Vec<_> = skipped
            .iter()
            .map(|skip| serde_json::json!({"key": skip.key, "kind": skip.kind, "reason": skip.reason}))
            .collect();
        let report = serde_json::json!({
            "dir": info.dir, "digest": info.identity.digest, "shards": info.shards.len(), "bytes": info.bytes,
            "samples": dataset.len(), "samples_declared": info.identity.counts.pairs, "classes": dataset.class_names().len(), "dataset_type": dataset.dataset_type().name(),
            "pixel_bytes": dataset.cached_bytes(), "streamed": dataset.is_streamed(), "skipped": skipped, "skipped_by_kind": kinds, "manifest": info.manifest,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("pool     {}", info.dir.display());
    println!("digest   {}", info.identity.digest);
    println!("shards   {} ({:.1} MB)", info.shards.len(), info.bytes as f64 / 1e6);
    println!("pairs    {}", dataset.len());
    if dataset.is_streamed() {
        println!("pixels   more than {:.1} GB: decoded at each reading", options.cache_bytes as f64 / 1e9);
    } else {
        println!("pixels   {:.1} MB", dataset.cached_bytes() as f64 / 1e6);
    }
    println!("classes  {}", dataset.class_names().len());
    println!("type     {}", dataset.dataset_type().name());
    println!("skipped  {}", skipped.len());
    for (kind, count) in &kinds {
        println!("         {count} ({kind})");
    }
    for skip in skipped.iter().take(10) {
        println!("         {}: {}", skip.key, skip.reason);
    }
    for note in info.manifest.iter().flat_map(|manifest| &manifest.notes) {
        println!("note     {note}");
    }
    Ok(())
}
