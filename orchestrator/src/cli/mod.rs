//! The command line: one file a command. Printing lives here and nowhere else.

mod advise;
mod analysis;
mod backtest;
mod cancel;
mod candidates;
mod checkpoint;
mod companions;
mod compare;
mod completions;
mod db;
mod doctor;
mod drive;
mod evaluate;
mod events;
mod explain;
mod export;
mod extend;
mod fit;
mod fits;
mod follow;
mod forecast;
mod frontier;
mod hashing;
mod import;
mod influence;
mod init;
mod isoflop;
mod launch;
mod laws;
mod logs;
mod model;
mod next;
pub mod output;
mod place;
mod plan;
mod plot;
mod progress;
mod report;
mod retry;
mod runner;
mod schema;
mod search;
mod serve;
mod setup;
mod site;
mod slurm;
mod solvers;
mod sql;
mod status;
mod submit_script;
mod target;
mod top;
mod trained;
mod tune;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{Exit, Failure};

/// Plan, run and analyse scaling-law studies of contrastive language-image training (CLIP).
#[derive(Debug, Parser)]
#[command(name = "sweep", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a job or a fit failed, or a launch was stopped or has cancelled jobs;
2 bad input; 3 the environment (database, runner, disk).
Data go to standard output, words to standard error. Set NO_COLOR for plain text.
Database: DATABASE_URL, or else a private PostgreSQL under .sweep/ that is started on demand.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented spec to start from.
    Init(init::Args),
    /// Show the jobs of a spec and what they cost; starts nothing.
    Plan(plan::Args),
    /// Add samples seen to a spec, and say what of the longer jobs is there already.
    Extend(extend::Args),
    /// Run the jobs of a spec that are not done yet.
    Launch(launch::Args),
    /// Print a batch script that runs one job, to submit by hand with `sbatch`.
    SubmitScript(submit_script::Args),
    /// Show the jobs of a sweep.
    Status(status::Args),
    /// Say why a job does not run, or what it is doing.
    Explain(explain::Args),
    /// List the checkpoints of a job, or copy one out for other programs.
    Checkpoint(checkpoint::Args),
    /// Measure weights: a checkpoint of anybody's, or those of a sweep.
    Evaluate(evaluate::Args),
    /// Watch a sweep on the terminal.
    Top(top::Args),
    /// Show what happened, and go on with what happens.
    Events(events::Args),
    /// Show what a job's runner wrote.
    Logs(logs::Args),
    /// Stop jobs and don't start them again.
    Cancel(cancel::Args),
    /// Give failed or cancelled jobs another go.
    Retry(retry::Args),
    /// Read results that others published.
    Import(import::Args),
    /// Write the results of a sweep for other programs.
    Export(export::Args),
    /// Fit a law to the results of a sweep.
    Fit(fit::Args),
    /// List the laws that can be fitted.
    Laws(laws::Args),
    /// Say what a job that was not run would reach, with its interval.
    Forecast(forecast::Args),
    /// Find the best model, samples seen and unique samples for a budget.
    Frontier(frontier::Args),
    /// Compare two training sets or families of models, law against law.
    Compare(compare::Args),
    /// Judge laws by what they had not seen.
    Backtest(backtest::Args),
    /// Say which jobs to run next, to narrow a forecast at least cost.
    Advise(advise::Args),
    /// Find the best model size at each budget of the sweep, three ways.
    Isoflop(isoflop::Args),
    /// Show what each job does to a law and a forecast.
    Influence(influence::Args),
    /// Draw figures of a sweep's analysis, SVG and PNG.
    Plot(plot::Args),
    /// Write a self-contained HTML report of a sweep.
    Report(report::Args),
    /// Show all sweeps on a live page, in a browser.
    Serve(serve::Args),
    /// Run a read-only SQL query, or open psql.
    Sql(sql::Args),
    /// Start, stop or look at the private database.
    Db(db::Args),
    /// Show a model's parameters and compute.
    Model(model::Args),
    /// Check that a runner of one's own speaks the protocol.
    Runner(runner::Args),
    /// Print the JSON Schema of a spec, for editors.
    Schema(schema::Args),
    /// Fetch libtorch and PostgreSQL for programs that `make dist` packed.
    Setup(setup::Args),
    /// Check that everything a sweep needs is there.
    Doctor(doctor::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}

/// Entry point of `sweep`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a Tokio runtime can be built");
    match runtime.block_on(dispatch(cli.command)) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.print(),
    }
}

async fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Init(args) => init::run(&args),
        Command::Plan(args) => plan::run(args).await,
        Command::Extend(args) => extend::run(args).await,
        Command::Launch(args) => Box::pin(launch::run(args)).await,
        Command::SubmitScript(args) => submit_script::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Checkpoint(args) => checkpoint::run(args).await,
        Command::Evaluate(args) => evaluate::run(args).await,
        Command::Top(args) => top::run(args).await,
        Command::Events(args) => events::run(args).await,
        Command::Logs(args) => logs::run(args).await,
        Command::Cancel(args) => cancel::run(args).await,
        Command::Retry(args) => retry::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Export(args) => export::run(args).await,
        Command::Fit(args) => fit::run(args).await,
        Command::Laws(args) => Ok(laws::run(&args)),
        Command::Forecast(args) => forecast::run(args).await,
        Command::Frontier(args) => frontier::run(args).await,
        Command::Compare(args) => compare::run(args).await,
        Command::Backtest(args) => backtest::run(args).await,
        Command::Advise(args) => advise::run(args).await,
        Command::Isoflop(args) => isoflop::run(args).await,
        Command::Influence(args) => influence::run(args).await,
        Command::Plot(args) => plot::run(args).await,
        Command::Report(args) => report::run(args).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Sql(args) => sql::run(args).await,
        Command::Db(args) => db::run(args).await,
        Command::Model(args) => model::run(&args),
        Command::Runner(args) => runner::run(args).await,
        Command::Schema(args) => schema::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Doctor(args) => doctor::run(args).await,
        Command::Completions(args) => Ok(completions::run(&args)),
    }
}
