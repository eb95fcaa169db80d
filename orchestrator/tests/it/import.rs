//! `sweep import` and `sweep export` from end to end: published data where they are, small fixtures of every source.

use std::fs;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use crate::harness::{Project, transcript};

/// A published file or folder, or `None` (said on standard error) where the data are absent.
fn published(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if !path.exists() {
        eprintln!("skipped: the published results are not beside this checkout ({})", path.display());
        return None;
    }
    Some(path.canonicalize().expect("it is there"))
}

fn csv(project: &Project, query: &str) -> String {
    project.ok(&["sql", "-f", "csv", query])
}

fn number(project: &Project, query: &str) -> f64 {
    csv(project, query).lines().nth(1).expect("a row").parse().expect("a number")
}

#[test]
fn the_2022_study() {
    let Some(folder) = published("scaling-laws-openclip") else { return };
    let folder = folder.to_str().expect("text");
    let project = Project::new();
    let output = project.output(&["import", "openclip-2022", folder]);
    assert_snapshot!(String::from_utf8_lossy(&output.stdout), @r"
    openclip-2022: 29 jobs (new), 9008 evaluations (new)
    openclip-2022-openai: 3 jobs (new), 321 evaluations (new)
    ");
    let said = String::from_utf8_lossy(&output.stderr);
    for wanted in [
        "trained_models_info.csv:4: `Model-L-14_Data-400M_Samples-34B_lr-1e-3_bs-86k.pt`: 84 epochs x 413000000 samples are \
         34.692e9, zeroshot_results.csv:6 says 34.216e9",
        "\"34B\" stands for 32.00e9",
        "samples_per_sec 108844.5704 stands in 3 rows",
        "the recipe of ViT-B-32 changes over the grid",
        "the curve of `Model-L-14_Data-2B_Samples-34B_lr-1e-3_bs-86k.pt` has 133 of 160 epochs",
        "the curve of `Model-H-14_Data-2B_Samples-34B_lr-5e-4_bs-79k.pt` has 250 of 256 epochs",
        "hint: sweep fit openclip-2022 --metric imagenet1k/acc1",
    ] {
        assert!(said.contains(wanted), "{wanted}\n{said}");
    }
    assert!(!said.contains("left out: name"), "{said}");
    let before = csv(&project, "SELECT * FROM evaluation ORDER BY attempt_id, dataset, metric, samples_seen");
    assert_snapshot!(project.ok(&["import", "openclip-2022", folder]), @r"
    openclip-2022: 29 jobs (unchanged), 9008 evaluations (unchanged)
    openclip-2022-openai: 3 jobs (unchanged), 321 evaluations (unchanged)
    ");
    assert_eq!(csv(&project, "SELECT * FROM evaluation ORDER BY attempt_id, dataset, metric, samples_seen"), before);

    let hours = number(&project, "SELECT sum(gpu_hours) FROM result WHERE sweep = 'openclip-2022'");
    assert!((hours - 1_058_318.0).abs() < 0.5, "A100 GPU-hours of the 29 runs: {hours}");
    // The file's own means over members, to its last digit.
    let rows = csv(
        &project,
        "SELECT dataset, value FROM observation WHERE model = 'ViT-H-14' AND metric = 'acc1'
         AND dataset IN ('vtab', 'vtab+', 'imagenet_robustness') ORDER BY 1",
    );
    let file = fs::read_to_string(Path::new(folder).join("zeroshot_results.csv")).expect("it is there");
    for row in rows.lines().skip(1) {
        let (dataset, ours) = row.split_once(',').expect("two columns");
        let line = file.lines().find(|line| line.starts_with("ViT-H-14") && line.split(',').nth(5) == Some(dataset));
        let theirs: f64 = line.and_then(|line| line.split(',').nth(6)).expect("a value").parse().expect("a number");
        assert!((ours.parse::<f64>().expect("a number") - theirs).abs() < 1e-12, "{row}: {theirs}");
    }
    assert_eq!(rows.lines().count(), 4, "{rows}");
    let stored = "SELECT count(*) FROM evaluation WHERE dataset IN ('vtab', 'vtab+', 'imagenet_robustness')";
    assert_eq!(csv(&project, stored), "count\n0\n", "means are made, not stored");
    assert_snapshot!(
        csv(&project, "SELECT model, n, d, u, epochs, pool, standard_error, chance, count FROM observation
                       WHERE sweep = 'openclip-2022' AND dataset = 'imagenet1k' AND metric = 'acc1' ORDER BY value DESC LIMIT 1"),
        @r"
    model,n,d,u,epochs,pool,standard_error,chance,count
    ViT-H-14,986110000.0,34725395968.0,2322161808.0,14.9539088311455,LAION-2B,0.0018534115657349289,0.001,50000
    "
    );
    let law = project.ok(&["fit", "openclip-2022", "--metric", "imagenet1k/acc1", "--points", "bins:5"]);
    assert!(law.contains("E = 5.86 * C^-0.111"), "{law}");
}

#[test]
fn probes_of_the_2022_study() {
    let Some(file) = published("clip_benchmark/scaling_experiment_data2.json") else { return };
    let project = Project::new();
    let output = project.output(&["import", "clip-benchmark", file.to_str().expect("text"), "--name", "probes"]);
    assert_snapshot!(String::from_utf8_lossy(&output.stdout), @"probes: 12 jobs (new), 1512 evaluations (new)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("of up to 9 learning rates and epochs the best on the test set is taken"), "{said}");
    assert!(said.contains("`ViT-B-16-plus-240 laion400m_e32`") || !said.contains("28.41"), "{said}");
    // Full-data probes as published: ImageNet, CIFAR-100 and VTAB's 19, percent.
    assert_snapshot!(
        csv(&project, "SELECT model, dataset, round(100 * value::numeric, 2) AS percent FROM observation
                       WHERE source_detail->>'pretrained' = 'laion2b_s32b_b79k' AND metric = 'lp_acc1@full'
                             AND dataset IN ('imagenet1k', 'cifar100', 'vtab-probe') ORDER BY 2"),
        @r"
    model,dataset,percent
    ViT-H-14,cifar100,91.43
    ViT-H-14,imagenet1k,84.85
    ViT-H-14,vtab-probe,75.96
    "
    );
}

#[test]
fn zero_shot_results_of_clip_benchmark_round_trip() {
    let Some(file) = published("clip_benchmark/benchmark.csv") else { return };
    let project = Project::new();
    let first = project.ok(&["import", "clip-benchmark", file.to_str().expect("text"), "--name", "cb"]);
    assert_snapshot!(first, @"cb: 13 jobs (new), 1417 evaluations (new)");
    round_trip(&project, "cb");
}

/// Exports a sweep as CLIP_benchmark's files and imports these: the same numbers.
fn round_trip(project: &Project, sweep: &str) {
    project.ok(&["export", sweep, "--format", "clip-benchmark", "-o", "out"]);
    project.ok(&["import", "clip-benchmark", "out", "--name", "again"]);
    let rows = |sweep: &str| {
        let query = format!(
            "SELECT model, source_detail->>'pretrained' AS tag, dataset, metric, value, gmacs_samples, d, pool FROM observation
             WHERE sweep = '{sweep}' ORDER BY 1, 2, 3, 4"
        );
        csv(project, &query)
    };
    assert_eq!(rows("again"), rows(sweep));
    assert!(rows(sweep).lines().count() > 1);
}

#[test]
fn chinchilla_points_read_off_a_figure() {
    let Some(file) = published("epoch_chinchilla_svg_extracted.csv") else { return };
    let project = Project::new();
    let args = [
        "import",
        "csv",
        file.to_str().expect("text"),
        "--name",
        "chinchilla",
        "--map",
        "n=Model Size",
        "--map",
        "c=Training FLOP",
        "--map",
        "d=`Training FLOP`/(6*`Model Size`)",
        "--map",
        "loss=loss",
        "--compute",
        "six_nd",
    ];
    assert_snapshot!(project.transcript(&args), @r"
    exit: 0
    ----- stdout -----
    chinchilla: 245 jobs (new), 245 evaluations (new)
    ----- stderr -----
    hint: sweep fit chinchilla --metric table/loss
    ");
    assert!(project.ok(&args).contains("245 jobs (unchanged), 245 evaluations (unchanged)"));
    // Not whole numbers, and exact all the same.
    assert_snapshot!(csv(&project, "SELECT n, d, six_nd, error FROM observation ORDER BY n DESC, d LIMIT 1"), @r"
    n,d,six_nd,error
    16183346310.730501,30163322120.186203,2.9288609265185467e+21,2.286445840825226
    ");
    assert!(number(&project, "SELECT max(abs(6 * n * d / six_nd - 1)) FROM observation") < 1e-12);
    let fit = project.output(&["fit", "chinchilla", "--metric", "table/loss", "--compute", "six_nd"]);
    assert!(String::from_utf8_lossy(&fit.stdout).contains("245 of 245"), "{}", transcript(&fit));
}

#[test]
fn a_table_with_mistakes_names_them() {
    let project = Project::new();
    fs::write(project.path().join("t.tsv"), "m\tn\td\tacc\na\t1e6\t1e9\t0.5\nb\tx\t1e9\t0.6\nc\t2e6\t2e9\t60\n")
        .expect("ours");
    let import = |more: &[&str]| project.transcript(&[&["import", "csv", "t.tsv", "--name", "t"], more].concat());
    assert_snapshot!(import(&["--map", "n=size", "--map", "accuracy=acc"]), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    error: --map `n=`: t.tsv has no column `size`; it has `m`, `n`, `d`, `acc`
    ");
    assert_snapshot!(import(&["--map", "n=n", "--map", "d=d", "--map", "accuracy=acc", "--map", "group=m"]), @r"
    exit: 0
    ----- stdout -----
    t: 1 jobs (new), 1 evaluations (new)
    ----- stderr -----
    warning: t.tsv: 1 row left out: accuracy: has to lie between 0 and 1; percent: `--map 'accuracy=COLUMN/100'`; without bound: map it as loss, or metric:loss_NAME: t.tsv:4 (60.0)
    warning: t.tsv: 1 row left out: n: has to be a finite number: t.tsv:3 (n: `x`)
    hint: sweep fit t --metric table/accuracy
    ");
    assert_snapshot!(import(&["--map", "accuracy=acc*100"]), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    warning: t.tsv: 3 rows left out: accuracy: has to lie between 0 and 1; percent: `--map 'accuracy=COLUMN/100'`; without bound: map it as loss, or metric:loss_NAME: t.tsv:2 (50.0), t.tsv:3 (60.0), t.tsv:4 (6000.0)
    error: no row of t.tsv can be imported
    ");
    let other = import(&["--map", "n=n*2", "--map", "accuracy=acc", "--map", "group=m"]);
    assert!(other.contains("warning: t also holds 1 jobs of earlier imports; `--replace` takes them out"), "{other}");
    let alone = import(&["--map", "n=n*2", "--map", "accuracy=acc", "--map", "group=m", "--replace"]);
    assert!(alone.contains("t: 1 jobs of earlier imports are no longer in it"), "{alone}");
    assert_eq!(csv(&project, "SELECT n FROM observation"), "n\n2000000.0\n");
    assert_snapshot!(project.transcript(&["import", "csv", "none.csv", "--name", "t", "--map", "loss=x"]), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    error: can't read none.csv
      caused by: No such file or directory (os error 2)
    ");
}

#[test]
fn a_run_of_openclip_with_its_checkpoints() {
    let project = Project::new();
    let run = project.path().join("logs/run-1/checkpoints");
    fs::create_dir_all(&run).expect("ours");
    let params = "batch_size: 64\ndataset_resampled: True\nepochs: 2\nmodel: ViT-B-32\nname: run-1\nseed: 3\n\
                  train_num_samples: 1000000\nworld_size: 2\n";
    fs::write(project.path().join("logs/run-1/params.txt"), params).expect("ours");
    let results = "{\"imagenet-zeroshot-val-top1\": 0.1, \"clip_val_loss\": 3.0, \"epoch\": 1, \"num_samples\": 500}\n\
                   {\"imagenet-zeroshot-val-top1\": 0.2, \"clip_val_loss\": 2.5, \"epoch\": 2, \"num_samples\": 500}\n";
    fs::write(run.join("results.jsonl"), results).expect("ours");
    assert_snapshot!(project.transcript(&["import", "open-clip", "logs"]), @r"
    exit: 0
    ----- stdout -----
    open-clip: 1 jobs (new), 4 evaluations (new)
    ----- stderr -----
    warning: run-1: samples were drawn with replacement (dataset_resampled) from a data set whose size the run does not say: no U
    hint: sweep fit open-clip --metric imagenet1k/acc1
    ");
    assert_snapshot!(
        csv(&project, "SELECT model, n, d, u, metric, value, six_nd FROM checkpoint_observation ORDER BY d, metric"), @r"
    model,n,d,u,metric,value,six_nd
    ViT-B-32,151277313.0,1000000.0,,acc1,0.1,907663878000000.0
    ViT-B-32,151277313.0,1000000.0,,loss@64,3.0,907663878000000.0
    ViT-B-32,151277313.0,2000000.0,,acc1,0.2,1815327756000000.0
    ViT-B-32,151277313.0,2000000.0,,loss@64,2.5,1815327756000000.0
    ");
    assert_snapshot!(project.transcript(&["import", "open-clip", "logs/run-1/checkpoints"]), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    error: logs/run-1/checkpoints is no run of OpenCLIP and holds none

    hint: a run has `params.txt` and `checkpoints/results.jsonl`
    ");
}

#[test]
fn aggregates_of_ones_own() {
    let project = Project::new();
    let table = "model,dataset,acc1\nm,a,0.5\nm,b,0.7\nm,c,0.9\n";
    fs::write(project.path().join("t.csv"), table).expect("ours");
    project.ok(&["import", "clip-benchmark", "t.csv"]);
    fs::write(project.path().join("a.yaml"), "two: [a, b]\nmore: [a, d]\n").expect("ours");
    assert_eq!(project.ok(&["import", "aggregates", "a.yaml"]), "2 aggregates, 2 new or changed\n");
    assert_eq!(project.ok(&["import", "aggregates", "a.yaml"]), "2 aggregates, 0 new or changed\n");
    assert_snapshot!(csv(&project, "SELECT dataset, value, error FROM observation ORDER BY 1"), @r"
    dataset,value,error
    a,0.5,0.5
    b,0.7,0.30000000000000004
    c,0.9,0.09999999999999998
    two,0.6,0.4
    ");
    round_trip(&project, "clip-benchmark");
    fs::write(project.path().join("a.yaml"), "vtab: [a]\n").expect("ours");
    assert_snapshot!(project.transcript(&["import", "aggregates", "a.yaml"]), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    error: the aggregate `vtab` comes with sweep and can't be redefined

    hint: give yours another name
    ");
    fs::write(project.path().join("a.yaml"), "x: [a, 3]\n").expect("ours");
    let said = project.transcript(&["import", "aggregates", "a.yaml"]);
    assert!(said.contains("a member has to be the name of a data set") && said.starts_with("exit: 2"), "{said}");
}

/// A sweep as if launched here, with one finished job.
const LAUNCHED: &str = "
    INSERT INTO pool (digest, name, path, samples) VALUES (repeat('a', 64), 'p', '/p', 100);
    INSERT INTO sweep (name, spec) VALUES ('ours', '');
    INSERT INTO job (job_key, state, spec, runner, runner_version, model, parameters, image_parameters, text_parameters, pool,
                     data_size, samples_seen, unique_samples, seed, gmacs_samples, train_flops, six_nd)
    VALUES (repeat('1', 64), 'done', '{}', 'clip', '1', 'm', 10, 5, 5, repeat('a', 64), 50, 100, 50, 0, 1000, 6000, 6000);
    INSERT INTO sweep_job SELECT 1, job_id, 0 FROM job;
    INSERT INTO attempt (job_id, token, state, backend, folder, fence, resumed_from_samples, samples_seen, train_secs, device)
    VALUES (1, 'a', 'finished', 'local', '/a', 1, 0, 100, 7200, 'cuda:0');
    INSERT INTO evaluation (attempt_id, dataset, metric, samples_seen, value)
    VALUES (1, 'v', 'acc1', 50, 0.25), (1, 'v', 'acc1', 100, 0.5), (1, 'v', 'loss@1024', 50, 3), (1, 'v', 'loss@1024', 100, 2);";

async fn execute(project: &Project, sql: &'static str) {
    use sqlx::Connection;
    project.ok(&["db", "start"]);
    let url = project.ok(&["db", "url"]);
    let mut connection = sqlx::PgConnection::connect(url.trim()).await.expect("it is up");
    sqlx::raw_sql(sql).execute(&mut connection).await.expect("rows");
}

#[tokio::test]
async fn ours_and_theirs_stay_apart() {
    let project = Project::new();
    execute(&project, LAUNCHED).await;
    fs::write(project.path().join("t.csv"), "n,acc\n1e6,0.5\n").expect("ours");
    let import = |name: &str| {
        project.transcript(&["import", "csv", "t.csv", "--name", name, "--map", "n=n", "--map", "accuracy=acc"])
    };
    assert_snapshot!(import("ours"), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    error: the sweep `ours` was launched here; published rows are not mixed into it

    hint: choose another name: `--name NAME`
    ");
    assert!(import("theirs").starts_with("exit: 0"));
    assert_snapshot!(csv(&project, "SELECT sweep, source, model, n, d, gpu_hours, metric FROM observation ORDER BY 1, 7"), @r"
    sweep,source,model,n,d,gpu_hours,metric
    ours,,m,10.0,100.0,2.0,acc1
    ours,,m,10.0,100.0,2.0,loss@1024
    theirs,csv,all,1000000.0,,,accuracy
    ");
    for command in [&["cancel", "theirs"][..], &["retry", "theirs"]] {
        project.ok(command);
    }
    assert_eq!(csv(&project, "SELECT DISTINCT state FROM job"), "state\ndone\n");
    let status = project.ok(&["status", "theirs"]);
    assert!(status.contains("done"), "{status}");
    let report = project.output(&["report", "theirs"]);
    assert!(report.status.success(), "{}", transcript(&report));
}

#[tokio::test]
async fn conditions_proxies_and_checkpoints() {
    use sweep::fit::Convention;
    use sweep::store::observation::ObservationsOf;
    let project = Project::new();
    execute(&project, LAUNCHED).await;
    let store = project.store().await;
    let of = ObservationsOf {
        sweep: "ours",
        dataset: "v",
        metric: "acc1",
        convention: Convention::SixNd,
        condition: None,
        proxy: Some(("v", "loss@1024")),
        checkpoints: false,
    };
    let one = store.observations(&of).await.expect("rows");
    assert_eq!((one.len(), one[0].error, one[0].proxy_loss, one[0].gpu_hours), (1, 0.5, 2.0, Some(2.0)));
    let both = store.observations(&ObservationsOf { checkpoints: true, ..of }).await.expect("rows");
    let seen: Vec<_> =
        both.iter().map(|o| (o.samples_seen, o.unique_samples, o.compute, o.proxy_loss, o.gpu_hours)).collect();
    assert_eq!(seen, [(50.0, 50.0, 3000.0, 3.0, Some(1.0)), (100.0, 50.0, 6000.0, 2.0, Some(2.0))]);
    let list = async |condition| store.observation_list("ours", "v", "acc1", Convention::SixNd, Some(condition)).await;
    assert_eq!(list("model = 'm' AND gpu_hours < 3").await.expect("rows").len(), 1);
    assert_eq!(list("model = 'other' OR d > 1e9").await.expect("none").len(), 0);
    for (bad, reason) in [
        ("colour = 'red'", "column \"colour\" does not exist"),
        ("n >", "Expected: an expression"),
        ("n", "argument of WHERE must be type boolean"),
        ("true) OR (true", "one expression, and something follows it: `)`"),
        ("true; DROP TABLE job", "one expression"),
        ("nextval('job_job_id_seq') > 0", "the function `nextval` is not allowed"),
    ] {
        let error = list(bad).await.expect_err(bad);
        assert!(error.to_string().contains(reason), "{bad}: {error}");
        assert!(error.hint().expect("a way out").contains("columns: model, pool"), "{error}");
    }
}
