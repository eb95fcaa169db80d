//! `sweep advise`, `isoflop` and `influence` by the binary, on a planned sweep whose results are drawn from a known
//! law.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use sqlx::Connection;
use sweep::store::private_postgres;

use crate::harness::{Project, transcript};

const SPEC: &str = "\
# Kept as it is.
name: grid
runner: ./own            # this too
grid:
  model: [cpu-w32-l2, cpu-w64-l3, cpu-w96-l4]
  samples_seen: [32k, 128k, 512k]
  data_size: [2k, 8k]

recipe: {global_batch: 128, lr: 1e-3}
";

const METRIC: [&str; 2] = ["--metric", "val/loss@1024"];
const TARGET: [&str; 6] = ["--model", "cpu-w96-l4", "--samples", "2048k", "--data", "8k"];

/// A project with the spec, a runner that can only say who it is, and every job of the spec done.
async fn project() -> Project {
    project_of(SPEC).await
}

async fn project_of(spec: &str) -> Project {
    let project = Project::new();
    let runner = project.path().join("own");
    let line = r#"echo '{"name":"own","version":"1","protocol":1,"reads_data":false,"devices":["cpu"]}'"#;
    fs::write(&runner, format!("#!/bin/sh\n{line}\n")).expect("a script");
    fs::set_permissions(&runner, fs::Permissions::from_mode(0o755)).expect("executable");
    fs::write(project.path().join("x.yaml"), spec).expect("a spec");
    let plan = planned(&project, "x.yaml");
    project.store().await;
    let access = private_postgres::running(&project.home()).expect("it is ours").expect("it is up");
    let mut connection = sqlx::PgConnection::connect_with(&access.options()).await.expect("it is up");
    sqlx::raw_sql(sqlx::AssertSqlSafe(results(&plan))).execute(&mut connection).await.expect("the schema fits");
    project
}

fn planned(project: &Project, spec: &str) -> Vec<Value> {
    json(&project.ok(&["plan", spec, "--json"]))["jobs"].as_array().expect("jobs").clone()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("one JSON object")
}

fn number(job: &Value, name: &str) -> f64 {
    job[name].as_f64().unwrap_or_else(|| panic!("{name} of {job}"))
}

/// SQL for the jobs' results: a loss of 0.5 + 80 N^-0.35 + 60 D^-0.35 + 3 U^-0.3, within 1 %.
fn results(jobs: &[Value]) -> String {
    let mut sql = "INSERT INTO pool (digest, name, path, samples) VALUES (repeat('a', 64), 'none', '', 8000);
        INSERT INTO sweep (name, question, spec) VALUES ('grid', '', '');\n"
        .to_owned();
    for (index, job) in jobs.iter().enumerate() {
        let text = |name: &str| job[name].as_str().expect("text");
        let (n, d, u) = (number(job, "parameters"), number(job, "samples_seen"), number(job, "unique_samples"));
        let noise = 1.0 + 0.01 * (index as f64 * 2.4).sin();
        let loss = (0.5 + 80.0 * n.powf(-0.35) + 60.0 * d.powf(-0.35) + 3.0 * u.powf(-0.3)) * noise;
        write!(
            sql,
            "INSERT INTO job (job_key, state, spec, runner, runner_version, model, parameters, image_parameters,
                 text_parameters, pool, data_size, samples_seen, unique_samples, seed, gmacs_samples, train_flops, six_nd,
                 done_at)
             VALUES ('{}', 'done', '{{}}', 'own', '1', '{}', {n}, {n} / 2, {n} / 2, repeat('a', 64), {}, {d}, {u}, {},
                 {:e}, {:e}, {:e}, now());
             INSERT INTO sweep_job (sweep_id, job_id, position) SELECT sweep_id, {id}, {id} FROM sweep;
             INSERT INTO attempt (job_id, token, state, backend, folder, fence, resumed_from_samples, samples_seen,
                 train_secs, eval_secs, device)
             VALUES ({id}, 'token-{id}', 'finished', 'local', '.', 1, 0, {d}, 10, 1, 'cpu');
             INSERT INTO evaluation (attempt_id, dataset, metric, samples_seen, value, standard_error, chance, count)
             SELECT attempt_id, 'val', 'loss@1024', {d}, {loss}, 0.01, 6.931, 1024 FROM attempt WHERE job_id = {id};\n",
            text("job_key"),
            text("model"),
            number(job, "data_size"),
            number(job, "seed"),
            number(job, "gmacs_samples"),
            number(job, "train_flops"),
            number(job, "six_nd"),
            id = index + 1,
        )
        .expect("writing to a string can't fail");
    }
    sql
}

fn advise<'a>(spec: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["advise", spec], &METRIC[..], &TARGET[..], &["--resamples", "40", "--law", "chinchilla"], more].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_is_printed_and_its_spec_can_be_planned() {
    let project = project().await;
    let all: f64 = planned(&project, "x.yaml").iter().map(|job| number(job, "gmacs_samples")).sum();
    let budget = format!("{:.0}", 2.0 * all);
    let text = project.ok(&advise("x.yaml", &["--budget", &budget]));
    for part in ["metric      val/loss@1024", "(chinchilla;", "target      cpu-w96-l4", "now         E = ", "E then"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let output = project.output(&advise("x.yaml", &["--budget", &budget, "--jobs", "4", "-o", "next.yaml", "--json"]));
    assert!(output.status.success(), "{}", transcript(&output));
    let advice = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(advice["schema"], "sweep.advise/1");
    assert_eq!(advice["written"], "next.yaml");
    let picks = advice["picks"].as_array().expect("picks");
    assert!((1..=4).contains(&picks.len()), "{advice}");
    let wide = |interval: &Value| (number(interval, "high") - number(interval, "low")) / number(interval, "value");
    let mut before = wide(&advice["before"]);
    for pick in picks {
        assert!(wide(&pick["after"]) < before && number(pick, "spent") <= 2.0 * all, "{pick}");
        before = wide(&pick["after"]);
    }

    // The old text, the old jobs, and the picks with new seeds.
    let next = fs::read_to_string(project.path().join("next.yaml")).expect("it was written");
    assert!(next.starts_with(SPEC) && next.contains("include:\n  - {model: cpu-w"), "{next}");
    let keys = |jobs: &[Value]| jobs.iter().map(|job| job["job_key"].to_string()).collect::<Vec<_>>();
    let (old, new) = (planned(&project, "x.yaml"), planned(&project, "next.yaml"));
    assert!(keys(&old).iter().all(|key| keys(&new).contains(key)));
    assert_eq!(new.len(), old.len() + picks.len());
    let is_there = |pick: &Value| {
        new.iter().any(|job| {
            ["model", "seed"].iter().all(|name| job[name] == pick[name])
                && ["samples_seen", "data_size"].iter().all(|name| (number(job, name) - number(pick, name)).abs() < 0.5)
        })
    };
    assert!(picks.iter().all(is_there), "{advice}");
    let states: Vec<&Value> = new.iter().map(|job| &job["state"]).collect();
    assert_eq!(states.iter().filter(|state| **state == "done").count(), old.len());

    // What was advised and not run yet is planned: nothing is added twice.
    let args = advise("next.yaml", &["--budget", &budget, "--jobs", "4", "-o", "next.yaml", "--json"]);
    let again = json(&project.ok(&args));
    let kinds: Vec<&Value> = again["picks"].as_array().expect("picks").iter().map(|pick| &pick["kind"]).collect();
    assert!(kinds.iter().all(|kind| **kind == "planned"), "{again}");
    assert_eq!(again["written"], Value::Null);
    let refused = project.transcript(&advise("x.yaml", &["--budget", &budget, "-o", "next.yaml"]));
    assert!(refused.starts_with("exit: 2") && refused.contains("next.yaml is there already"), "{refused}");

    let fresh = json(&project.ok(&advise("x.yaml", &["--budget", &budget, "--no-replicates", "--json"])));
    let kinds: Vec<&Value> = fresh["picks"].as_array().expect("picks").iter().map(|pick| &pick["kind"]).collect();
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| **kind == "new"), "{fresh}");
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_stops_and_says_why() {
    let project = project().await;
    let stops = |more: &[&str]| project.ok(&advise("grid", more));
    let text = stops(&["--budget", "1e9", "--width", "500%"]);
    assert!(text.contains("end         stop: the interval is as narrow as wanted"), "{text}");
    let text = stops(&["--budget", "0.001"]);
    assert!(text.contains("the budget buys no further job") && text.contains("cheapest candidate costs"), "{text}");
    let text = stops(&["--budget", "1e9", "--jobs", "1"]);
    assert!(text.contains("as many jobs as asked for"), "{text}");

    let refused = |args: &[&str], part: &str| {
        let shown = project.transcript(args);
        assert!(shown.starts_with("exit: 2") && shown.contains(part), "{shown}");
    };
    refused(&advise("grid", &["--budget", "0"]), "it has to be above zero");
    refused(&advise("grid", &["--budget", "1e9", "--width", "wide"]), "a share above zero");
    refused(&advise("grid", &["--budget", "1e9", "-o", "y.yaml"]), "no spec, so there is nothing to add jobs to");
    refused(&advise("gird", &["--budget", "1e9"]), "did you mean `grid`?");
    refused(&advise("gone.yaml", &["--budget", "1e9"]), "can't read spec gone.yaml");
    refused(&advise("grid", &["--budget", "1e9", "--gpu-hours"]), "GPU-hours");
    refused(&advise("grid", &["--budget", "1e9", "--candidates-model", "cpu-w64-13"]), "did you mean `cpu-w64-l3`?");
    refused(&["advise", "grid", METRIC[0], METRIC[1], "--budget", "1e9", "--samples", "2M"], "add --model");

    // Which law, where none is asked for: N, D and U all vary here.
    let usual = [&["advise", "grid"], &METRIC[..], &TARGET[..], &["--budget", "1e9", "--resamples", "40"]].concat();
    assert!(project.ok(&usual).contains("(additive;"));
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_whole_batches_of_the_rule_and_of_overrides() {
    let batch = "{rule: 'min(4 * samples_seen^0.5, 250)', round: 32}";
    let spec = SPEC.replace("global_batch: 128", &format!("global_batch: {batch}"));
    let project =
        project_of(&format!("{spec}overrides:\n  - {{where: {{model: cpu-w32-l2}}, set: {{global_batch: 96}}}}\n"))
            .await;
    for (model, batch) in [("cpu-w96-l4", 256), ("cpu-w32-l2", 96)] {
        let (output, only) = (format!("{model}.yaml"), ["--candidates-samples", "1M", "--candidates-model", model]);
        let more =
            [&only[..], &["--budget", "1e9", "--no-replicates", "--jobs", "1", "-o", &output, "--json"]].concat();
        let advice = json(&project.ok(&advise("x.yaml", &more)));
        let whole = 1_000_000_u64.div_ceil(batch) * batch;
        assert_eq!(advice["picks"][0]["samples_seen"], whole as f64, "{advice}");
        let planned = planned(&project, &output);
        let there = |job: &&Value| job["model"] == model && job["samples_seen"] == whole;
        assert_eq!((planned.len(), planned.iter().filter(there).count()), (19, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_include_is_left_to_the_user() {
    let project = project().await;
    let flow = format!("{SPEC}include: [{{model: cpu-w32-l2, samples_seen: 32k, data_size: 2k, seed: 1}}]\n");
    fs::write(project.path().join("flow.yaml"), flow).expect("a spec");
    let args =
        advise("flow.yaml", &["--budget", "1e9", "--candidates-samples", "1M", "--no-replicates", "-o", "next.yaml"]);
    let shown = project.transcript(&args);
    assert!(
        shown.starts_with("exit: 2") && shown.contains("add these to it yourself:\ninclude:\n  - {model: "),
        "{shown}"
    );
    assert!(!project.path().join("next.yaml").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn isoflop_and_influence_answer() {
    let project = project().await;
    let isoflop = [&["isoflop", "grid"], &METRIC[..], &["--resamples", "40", "--tolerance", "1"]].concat();
    let text = project.ok(&isoflop);
    for part in ["(chinchilla)", "N* surface", "N* parabola", "surface     N* ~ C^"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let found = json(&project.ok(&[&isoflop[..], &["--json"]].concat()));
    assert_eq!(found["schema"], "sweep.isoflop/1");
    assert!(found["budgets"].as_array().is_some_and(|budgets| !budgets.is_empty()), "{found}");
    let narrow = project.output(&[&isoflop[..6], &["--tolerance", "1e-9"]].concat());
    assert_eq!(narrow.status.code(), Some(1), "{}", transcript(&narrow));
    let refused = project.transcript(&[&isoflop[..], &["--law", "power-n"]].concat());
    assert!(refused.starts_with("exit: 2") && refused.contains("not one of N and D"), "{refused}");

    let influence = [&["influence", "grid"], &METRIC[..], &TARGET[..], &["--resamples", "40"]].concat();
    let text = project.ok(&[&influence[..], &["--top", "3", "--peel", "2"]].concat());
    for part in ["without", "s.e.", "job         cpu-w96-l4", "peeled      without job"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let found = json(&project.ok(&[&influence[..], &["--json"]].concat()));
    assert_eq!((&found["schema"], found["effects"].as_array().map(Vec::len)), (&"sweep.influence/1".into(), Some(18)));
    let refused = project.transcript(&["influence", "grid", METRIC[0], METRIC[1], "--model", "cpu-w32-l2"]);
    assert!(refused.starts_with("exit: 2") && refused.contains("add --samples"), "{refused}");
}
