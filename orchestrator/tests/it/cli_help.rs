//! The list of commands, and that shells complete them.

use super::cli_plan::{project, shown};

#[test]
fn help() {
    insta::assert_snapshot!(shown(project().path(), &["--help"]), @r"
    exit: 0
    ----- stdout -----
    Plan, run and analyse scaling-law studies of contrastive language-image training (CLIP)

    Usage: sweep <COMMAND>

    Commands:
      init           Write a commented spec to start from
      plan           Show the jobs of a spec and what they cost; starts nothing
      extend         Add samples seen to a spec, and say what of the longer jobs is there already
      launch         Run the jobs of a spec that are not done yet
      submit-script  Print a batch script that runs one job, to submit by hand with `sbatch`
      status         Show the jobs of a sweep
      explain        Say why a job does not run, or what it is doing
      checkpoint     List the checkpoints of a job, or copy one out for other programs
      evaluate       Measure weights: a checkpoint of anybody's, or those of a sweep
      top            Watch a sweep on the terminal
      events         Show what happened, and go on with what happens
      logs           Show what a job's runner wrote
      cancel         Stop jobs and don't start them again
      retry          Give failed or cancelled jobs another go
      import         Read results that others published
      export         Write the results of a sweep for other programs
      fit            Fit a law to the results of a sweep
      laws           List the laws that can be fitted
      forecast       Say what a job that was not run would reach, with its interval
      frontier       Find the best model, samples seen and unique samples for a budget
      compare        Compare two training sets or families of models, law against law
      backtest       Judge laws by what they had not seen
      advise         Say which jobs to run next, to narrow a forecast at least cost
      isoflop        Find the best model size at each budget of the sweep, three ways
      influence      Show what each job does to a law and a forecast
      plot           Draw figures of a sweep's analysis, SVG and PNG
      report         Write a self-contained HTML report of a sweep
      serve          Show all sweeps on a live page, in a browser
      sql            Run a read-only SQL query, or open psql
      db             Start, stop or look at the private database
      model          Show a model's parameters and compute
      runner         Check that a runner of one's own speaks the protocol
      schema         Print the JSON Schema of a spec, for editors
      setup          Fetch libtorch and PostgreSQL for programs that `make dist` packed
      doctor         Check that everything a sweep needs is there
      completions    Print a completion script for a shell
      help           Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Exit codes: 0 done; 1 a job or a fit failed, or a launch was stopped or has cancelled jobs;
    2 bad input; 3 the environment (database, runner, disk).
    Data go to standard output, words to standard error. Set NO_COLOR for plain text.
    Database: DATABASE_URL, or else a private PostgreSQL under .sweep/ that is started on demand.
    ----- stderr -----
    ");
}

#[test]
fn completions_know_every_command() {
    let dir = project();
    let help = shown(dir.path(), &["--help"]);
    let names = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<&str> = names.map_while(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"top") && names.contains(&"events"), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let script = shown(dir.path(), &["completions", shell]);
        let missing: Vec<_> = names.iter().filter(|name| !script.contains(**name)).collect();
        assert!(missing.is_empty(), "{shell}: {missing:?}");
    }
    assert!(shown(dir.path(), &["completions", "bash"]).contains("given_up"), "values are completed too");
}
