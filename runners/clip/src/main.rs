//! `clip-runner`: arguments in, events out.

use std::io::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use clip_runner::bench::{self, BenchOptions};
use clip_runner::bench_data::{self, BenchDataOptions};
use clip_runner::finetune::{self, FinetuneOptions};
use clip_runner::interpolate::{self, InterpolateOptions};
use clip_runner::{device, job, listing, serve};

/// Trains and measures CLIP models for `sweep`.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print what this runner is, as JSON.
    Describe,
    /// Train a job; events go to standard output, one JSON object a line.
    Run {
        /// The job, as `sweep-worker` writes it.
        #[arg(long)]
        job: PathBuf,
    },
    /// Train the jobs that come on standard input, one a line, as `{"job": FILE}`.
    Serve,
    /// Fine-tune as an evaluation of a job does, and write the weights.
    Finetune(FinetuneOptions),
    /// Mix the weights of two checkpoints, and measure or write what lies between them.
    Interpolate(InterpolateOptions),
    /// List the keys of the samples that each step of a job trains on, one JSON object a line.
    Batches {
        /// The job, as `sweep-worker` writes it.
        #[arg(long)]
        job: PathBuf,
        /// These steps alone, counted from 1: `5`, `1..10` (both are listed).
        #[arg(long, value_parser = listing::steps, value_name = "A..B")]
        steps: Option<RangeInclusive<u64>>,
    },
    /// Time a full training step on made-up data.
    BenchStep(BenchOptions),
    /// Time what makes batches out of shards: reading, decoding, random crops, normalising.
    BenchData(BenchDataOptions),
}

fn main() -> anyhow::Result<ExitCode> {
    match Args::parse().command {
        Command::Describe => {
            let description = serde_json::to_string(&job::describe(device::devices()))?;
            writeln!(std::io::stdout().lock(), "{description}")?;
        }
        Command::Run { job } => {
            device::die_with_parent();
            return Ok(ExitCode::from(u8::try_from(serve::run_one(&job)?)?));
        }
        Command::Serve => {
            device::die_with_parent();
            return Ok(ExitCode::from(u8::try_from(serve::serve(std::io::stdin().lines())?)?));
        }
        Command::Finetune(options) => finetune::finetune(&options, &mut std::io::stdout().lock())?,
        Command::Interpolate(options) => interpolate::interpolate(&options, &mut std::io::stdout().lock())?,
        Command::Batches { job, steps } => listing::list(&job, steps, &mut std::io::stdout().lock())?,
        Command::BenchStep(options) => bench::bench(&options, &mut std::io::stdout().lock())?,
        Command::BenchData(options) => bench_data::bench(&options, &mut std::io::stdout().lock())?,
    }
    Ok(ExitCode::SUCCESS)
}
