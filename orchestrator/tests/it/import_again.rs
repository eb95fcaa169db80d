//! Importing again: rows from files that moved, corrected rows, other studies, databases of older versions.

use std::fs;

use insta::assert_snapshot;
use sqlx::Connection;

use crate::harness::Project;

fn write(project: &Project, path: &str, text: &str) {
    let path = project.path().join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("ours");
    fs::write(path, text).expect("ours");
}

fn sql(project: &Project, query: &str) -> String {
    project.ok(&["sql", "-f", "csv", query])
}

async fn execute(project: &Project, text: &'static str) {
    let url = project.ok(&["db", "url"]);
    let mut connection = sqlx::PgConnection::connect(url.trim()).await.expect("it is up");
    sqlx::raw_sql(text).execute(&mut connection).await.expect("rows");
}

const VALUES: &str = "SELECT sweep, model, parameters AS n, samples_seen AS d, dataset, metric, value FROM observation
                      ORDER BY 1, 2, 3, 4, 5, 6, 7";

#[test]
fn studies_with_the_same_models_and_tags_stay_apart() {
    let project = Project::new();
    write(&project, "one.csv", "model,dataset,acc1\nViT-B-32,a,0.5\n");
    write(&project, "two.csv", "model,dataset,acc1\nViT-B-32,a,0.25\nViT-B-32,b,0.75\n");
    for name in ["one", "two"] {
        project.ok(&["import", "clip-benchmark", &format!("{name}.csv"), "--name", name]);
    }
    assert_snapshot!(sql(&project, VALUES), @r"
    sweep,model,n,d,dataset,metric,value
    one,ViT-B-32,151277313,,a,acc1,0.5
    two,ViT-B-32,151277313,,a,acc1,0.25
    two,ViT-B-32,151277313,,b,acc1,0.75
    ");
    // Under one name they contradict each other, and more of a model that is there is said.
    assert_snapshot!(project.transcript(&["import", "clip-benchmark", "two.csv", "--name", "one"]), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    conflict: `ViT-B-32`: a/acc1: 0.5 is stored, the source says 0.25
    error: 1 values are stored otherwise than the source says; nothing was imported

    hint: `--replace` stores what the source says; another study needs a name of its own (`--name`)
    ");
    write(&project, "three.csv", "model,dataset,acc1\nViT-B-32,b,0.75\n");
    assert_snapshot!(project.transcript(&["import", "clip-benchmark", "three.csv", "--name", "one"]), @r"
    exit: 0
    ----- stdout -----
    one: 1 jobs (unchanged), 1 evaluations (new)
    ----- stderr -----
    warning: 1 jobs of an earlier import of `one` have 1 measurements more; if these are of another study, it needs a name of its own (`--name`)
    hint: sweep fit one --metric b/acc1
    ");
}

#[test]
fn a_corrected_table_is_refused_until_it_may_replace() {
    let project = Project::new();
    let maps = ["--map", "n=n", "--map", "d=d", "--map", "accuracy=acc", "--map", "se=se", "--map", "cost=hours"];
    let import = |file: &str, more: &[&str]| {
        project.transcript(&[&["import", "csv", file, "--name", "t"], &maps[..], more].concat())
    };
    write(&project, "t.csv", "n,d,acc,se,hours,note\n10,100,0.5,0.01,2,x\n20,100,0.6,,3,y\n30,100,0.7,,4,z\n");
    assert!(import("t.csv", &[]).contains("t: 3 jobs (new), 3 evaluations (new)"));
    // Moved, renamed, in another order, with a row more that cannot be read.
    let moved = "n,d,acc,se,hours,note\n30,100,0.7,,4,z\n10,100,0.5,0.01,2,x\n20,100,0.6,,3,y\nx,1,0.5,,1,\n";
    write(&project, "elsewhere/u.csv", moved);
    assert!(import("elsewhere/u.csv", &[]).contains("t: 3 jobs (unchanged), 3 evaluations (unchanged)"));
    let before = sql(&project, "SELECT * FROM evaluation ORDER BY 1");
    write(&project, "t.csv", "n,d,acc,se,hours,note\n10,100,0.55,0.02,2,x\n20,100,0.6,,5,y\n30,100,0.7,,4,other\n");
    assert_snapshot!(import("t.csv", &[]), @r#"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    warning: t.csv: 2 rows without `se` (empty): t.csv:3, t.csv:4
    conflict: t.csv:2: table/accuracy at 100 samples seen: 0.5 is stored, the source says 0.55
    conflict: t.csv:3: train_secs: 10800 is stored, the source says 18000.0
    conflict: t.csv:4: source_detail.cells.note: "z" is stored, the source says "other"
    error: 3 values are stored otherwise than the source says; nothing was imported

    hint: `--replace` stores what the source says; another study needs a name of its own (`--name`)
    "#);
    assert_eq!(sql(&project, "SELECT * FROM evaluation ORDER BY 1"), before, "nothing was stored");
    write(&project, "t.csv", "n,d,acc,se,hours,note\n10,100,0.55,0.02,2,x\n20,100,0.6,,5,y\n");
    assert_snapshot!(import("t.csv", &["--replace"]), @r"
    exit: 0
    ----- stdout -----
    t: 2 jobs (changed), 2 evaluations (1 changed, 1 unchanged)
    ----- stderr -----
    warning: t.csv: 1 row without `se` (empty): t.csv:3
    t: 1 jobs of earlier imports are no longer in it
    hint: sweep fit t --metric table/accuracy
    ");
    assert_snapshot!(
        sql(&project, "SELECT n, value, standard_error, gpu_hours, source_detail->>'sha256' IS NOT NULL AS has_file
                       FROM observation ORDER BY n"), @r"
    n,value,standard_error,gpu_hours,has_file
    10.0,0.55,0.02,2.0,true
    20.0,0.6,,5.0,true
    ");
    assert_eq!(sql(&project, "SELECT count(*) FROM job"), "count\n2\n", "a job of no sweep is gone");
    assert_eq!(sql(&project, "SELECT count(*) FROM measurement"), "count\n2\n");
    assert!(import("t.csv", &["--replace"]).contains("t: 2 jobs (unchanged), 2 evaluations (unchanged)"));
}

#[test]
fn replacing_takes_out_measurements_that_are_gone() {
    let project = Project::new();
    write(&project, "cb.csv", "model,pretrained,dataset,acc1\nViT-B-32,t,a,0.5\nViT-B-32,t,b,0.6\nViT-B-16,t,a,0.7\n");
    project.ok(&["import", "clip-benchmark", "cb.csv"]);
    write(&project, "cb.csv", "model,pretrained,dataset,acc1\nViT-B-32,t,a,0.5\nViT-B-32,t,c,0.4\n");
    assert_snapshot!(project.transcript(&["import", "clip-benchmark", "cb.csv", "--replace"]), @r"
    exit: 0
    ----- stdout -----
    clip-benchmark: 1 jobs (changed), 2 evaluations (1 new, 1 unchanged, 1 taken out)
    ----- stderr -----
    clip-benchmark: 1 jobs of earlier imports are no longer in it
    hint: sweep fit clip-benchmark --metric a/acc1
    ");
    assert_snapshot!(sql(&project, VALUES), @r"
    sweep,model,n,d,dataset,metric,value
    clip-benchmark,ViT-B-32,151277313,,a,acc1,0.5
    clip-benchmark,ViT-B-32,151277313,,c,acc1,0.4
    ");
}

#[test]
fn rows_that_stand_twice() {
    let project = Project::new();
    let rows = "n,acc,lr\n10,0.5,1\n10,0.5,1\n10,0.5,2\n10,0.6,1\n";
    write(&project, "t.csv", rows);
    let args = ["import", "csv", "t.csv", "--name", "t", "--map", "n=n", "--map", "accuracy=acc"];
    assert_snapshot!(project.transcript(&args), @r"
    exit: 0
    ----- stdout -----
    t: 3 jobs (new), 3 evaluations (new)
    ----- stderr -----
    warning: t.csv: 1 row the same as another throughout, stored once: t.csv:3 (as t.csv:2)
    warning: t.csv: 2 rows with the axes of another row, stored as runs of their own (a mapped `seed`, `group` or `run` tells rows apart): t.csv:4 (as t.csv:2), t.csv:5 (as t.csv:2)
    hint: sweep fit t --metric table/accuracy
    ");
    write(&project, "t.csv", &format!("{rows}10,0.7,1\n"));
    let again = project.transcript(&args);
    assert!(again.contains("t: 4 jobs (1 new, 3 unchanged), 4 evaluations (1 new, 3 unchanged)"), "{again}");
    let table = "model,pretrained,dataset,task,acc1\nm,t,a,x,0.5\nm,t,a,y,0.5\nm,t,a,x,0.6\n";
    write(&project, "cb.csv", table);
    assert_snapshot!(project.transcript(&["import", "clip-benchmark", "cb.csv"]), @r"
    exit: 0
    ----- stdout -----
    clip-benchmark: 1 jobs (new), 1 evaluations (new)
    ----- stderr -----
    warning: cb.csv:4: `m t` has a/acc1 twice, 0.5 in cb.csv:2 and 0.6 here; the first is used
    warning: cb.csv:3: `m t` has the values of cb.csv:2, with other `task`; they are stored once
    hint: sweep fit clip-benchmark --metric a/acc1
    ");
}

const PARAMS: &str = "batch_size: 64\nepochs: 4\nlr: 0.001\nmodel: ViT-B-32\nname: run-1\nseed: 3\n\
                      train_num_samples: 1000000\nworld_size: 2\n";

fn openclip_run(project: &Project, folder: &str, params: &str, epochs: &[(u64, f64)]) {
    write(project, &format!("{folder}/params.txt"), params);
    let line = |(epoch, value): &(u64, f64)| format!("{{\"imagenet-zeroshot-val-top1\": {value}, \"epoch\": {epoch}}}");
    let lines: Vec<String> = epochs.iter().map(line).collect();
    write(project, &format!("{folder}/checkpoints/results.jsonl"), &(lines.join("\n") + "\n"));
}

#[test]
fn a_run_of_openclip_trains_on_and_moves() {
    let project = Project::new();
    let import = |more: &[&str]| project.transcript(&[&["import", "open-clip", "logs"], more].concat());
    openclip_run(&project, "logs/run-1", PARAMS, &[(1, 0.1), (2, 0.2)]);
    assert!(import(&[]).contains("open-clip: 1 jobs (new), 2 evaluations (new)"));
    fs::rename(project.path().join("logs/run-1"), project.path().join("logs/renamed")).expect("ours");
    assert!(import(&[]).contains("open-clip: 1 jobs (unchanged), 2 evaluations (unchanged)"));
    // Trained on, and on more GPUs.
    let further = PARAMS.replace("world_size: 2", "world_size: 8");
    openclip_run(&project, "logs/renamed", &further, &[(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]);
    assert_snapshot!(import(&[]), @r"
    exit: 0
    ----- stdout -----
    open-clip: 1 jobs (changed), 4 evaluations (2 new, 2 unchanged)
    ----- stderr -----
    hint: sweep fit open-clip --metric imagenet1k/acc1
    ");
    let curve = "SELECT d, value, parameters FROM checkpoint_observation ORDER BY d";
    assert_snapshot!(sql(&project, curve), @r"
    d,value,parameters
    1000000.0,0.1,151277313
    2000000.0,0.2,151277313
    3000000.0,0.3,151277313
    4000000.0,0.4,151277313
    ");
    assert_eq!(sql(&project, "SELECT d, value FROM observation"), "d,value\n4000000.0,0.4\n");
    // An older copy alone changes nothing, and beside it neither.
    openclip_run(&project, "logs/renamed", PARAMS, &[(1, 0.1), (2, 0.2)]);
    assert_snapshot!(import(&[]), @r"
    exit: 0
    ----- stdout -----
    open-clip: 1 jobs (unchanged), 2 evaluations (unchanged)
    ----- stderr -----
    warning: renamed: the last evaluation is of epoch 2 of 4: the run is unfinished, or it was not measured at its end; its learning rate had not reached zero
    warning: renamed: stored is a later state of this run, with further samples seen, and stays; `--replace` goes back
    hint: sweep fit open-clip --metric imagenet1k/acc1
    ");
    openclip_run(&project, "logs/second", &further, &[(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]);
    let beside = import(&[]);
    assert!(beside.contains("1 jobs (unchanged), 4 evaluations (unchanged)"), "{beside}");
    assert!(beside.contains("renamed holds the run of second too, no further trained; it is left out"), "{beside}");
    assert_eq!(sql(&project, "SELECT d, value FROM observation"), "d,value\n4000000.0,0.4\n");
    // One that contradicts is imported from neither folder, and what is stored of it stays, `--replace` or not.
    openclip_run(&project, "logs/renamed", PARAMS, &[(1, 0.1), (2, 0.25)]);
    openclip_run(&project, "logs/third", &PARAMS.replace("run-1", "run-2"), &[(1, 0.5)]);
    assert_snapshot!(import(&["--replace"]), @r"
    exit: 1
    ----- stdout -----
    open-clip: 1 jobs (new), 1 evaluations (new)
    ----- stderr -----
    warning: renamed: the last evaluation is of epoch 2 of 4: the run is unfinished, or it was not measured at its end; its learning rate had not reached zero
    warning: third: the last evaluation is of epoch 1 of 4: the run is unfinished, or it was not measured at its end; its learning rate had not reached zero
    error: not imported: second and renamed hold one run by its name, seed and settings, but differ: imagenet1k/acc1 at 2000000 samples seen is 0.2 and 0.25; take one away, or give `name` in its params.txt another value
    warning: open-clip also holds 1 jobs of earlier imports; they stay, since a part of the source was not read
    hint: sweep fit open-clip --metric imagenet1k/acc1
    ");
    assert_eq!(sql(&project, "SELECT d, value FROM observation ORDER BY d"), "d,value\n1000000.0,0.5\n4000000.0,0.4\n");
    fs::remove_dir_all(project.path().join("logs/second")).expect("ours");
    assert_snapshot!(import(&[]), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    warning: renamed: the last evaluation is of epoch 2 of 4: the run is unfinished, or it was not measured at its end; its learning rate had not reached zero
    warning: third: the last evaluation is of epoch 1 of 4: the run is unfinished, or it was not measured at its end; its learning rate had not reached zero
    conflict: renamed: imagenet1k/acc1 at 2000000 samples seen: 0.2 is stored, the source says 0.25
    error: 1 values are stored otherwise than the source says; nothing was imported

    hint: `--replace` stores what the source says; another study needs a name of its own (`--name`)
    ");
    assert!(import(&["--replace"]).contains("open-clip: 2 jobs (1 changed, 1 unchanged), 3 evaluations"));
    assert_eq!(
        sql(&project, "SELECT d, value FROM observation ORDER BY d"),
        "d,value\n1000000.0,0.5\n2000000.0,0.25\n"
    );
}

/// As versions to 0.1 stored them: one job for both studies, under a key without the study.
const FORMER: &str = r#"
    UPDATE job SET job_key = encode(sha256(convert_to(
        '{"imported":"clip-benchmark","row":{"model":"ViT-B-32","pretrained":"t","samples_seen":null}}', 'UTF8')), 'hex')
    WHERE model = 'ViT-B-32';
    UPDATE job_spec SET spec = '{"imported":{"model":"ViT-B-32","pretrained":"t","samples_seen":null}}'
    FROM job WHERE job.job_id = job_spec.job_id AND model = 'ViT-B-32';
    INSERT INTO sweep (name, spec, source) VALUES ('two', '', 'clip-benchmark');
    INSERT INTO sweep_job SELECT (SELECT sweep_id FROM sweep WHERE name = 'two'), job_id, 0 FROM job
    WHERE model = 'ViT-B-32'"#;

#[tokio::test]
async fn jobs_of_older_versions_get_their_studies_keys() {
    let project = Project::new();
    write(&project, "one.csv", "model,pretrained,dataset,acc1\nViT-B-32,t,a,0.5\n");
    write(&project, "two.csv", "model,pretrained,dataset,acc1\nViT-B-32,t,a,0.5\nViT-B-32,t,b,0.25\n");
    project.ok(&["import", "clip-benchmark", "one.csv", "--name", "one"]);
    execute(&project, FORMER).await;
    let import = |name: &str| project.transcript(&["import", "clip-benchmark", &format!("{name}.csv"), "--name", name]);
    assert_snapshot!(import("two"), @r"
    exit: 0
    ----- stdout -----
    two: 1 jobs (new), 2 evaluations (new)
    ----- stderr -----
    warning: 1 jobs were shared with other sweeps by an older version of sweep; this one now has its own, with the measurements of this source alone: import again what else they were measured on
    hint: sweep fit two --metric a/acc1
    ");
    assert_snapshot!(import("one"), @r"
    exit: 0
    ----- stdout -----
    one: 1 jobs (unchanged), 1 evaluations (unchanged)
    ----- stderr -----
    hint: sweep fit one --metric a/acc1
    ");
    assert_snapshot!(sql(&project, VALUES), @r"
    sweep,model,n,d,dataset,metric,value
    one,ViT-B-32,151277313,,a,acc1,0.5
    two,ViT-B-32,151277313,,a,acc1,0.5
    two,ViT-B-32,151277313,,b,acc1,0.25
    ");
    assert_eq!(sql(&project, "SELECT count(*) FROM job"), "count\n2\n");
    assert!(import("one").contains("1 jobs (unchanged)") && import("two").contains("1 jobs (unchanged)"));
}
