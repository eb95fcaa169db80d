//! The analysing commands by the binary: on the published study where it is beside this checkout, and on a small table.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Project, transcript};

/// The published CSVs, or `None` (said on standard error) where they are absent.
fn published() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/scaling-laws-openclip");
    if folder.join("zeroshot_results.csv").exists() {
        return Some(folder);
    }
    eprintln!("skipped: the published results are not beside this checkout ({})", folder.display());
    None
}

fn json(project: &Project, args: &[&str]) -> Value {
    let output = project.output(args);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", transcript(&output)))
}

fn close(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{got} is not {want} within {tolerance}");
}

/// A parameter of `sweep fit --json`.
fn parameter(fit: &Value, name: &str, part: &str) -> f64 {
    let parameters = fit["parameters"].as_array().expect("a list");
    parameters.iter().find(|one| one["name"] == name).expect("it is there")[part].as_f64().expect("a number")
}

/// Samples seen and GMACs of the forecast cell of the study's notebook: five scales by six models.
const SCALES: [f64; 5] =
    [1e9, 80_000_415.0 * 32.0, 407_332_084.0 * 32.0, 407_332_084.0 * 84.0, 407_332_084.0 * 84.0 * 2.0];

#[tokio::test(flavor = "multi_thread")]
async fn the_2022_study_comes_out_of_import_and_fit() {
    let Some(data) = published() else { return };
    let project = Project::new();
    project.store().await;
    project.ok(&["import", "openclip-2022", data.to_str().unwrap()]);
    for (metric, alpha, beta, giant, error) in [
        ("imagenet1k/acc1", -0.111_39, 5.8581, 81.92, 0.874_371_218_9),
        ("mscoco_captions/image_retrieval_recall@5", -0.079_43, 2.7497, 76.99, 0.588_433_575_9),
    ] {
        let fit = json(&project, &["fit", "openclip-2022", "--metric", metric, "--points", "bins:5", "--json"]);
        close(parameter(&fit, "alpha", "value"), alpha, 1e-5);
        close(parameter(&fit, "beta", "value"), beta, 1e-4);
        let law = |compute: f64| {
            100.0 * (1.0 - parameter(&fit, "beta", "value") * compute.powf(parameter(&fit, "alpha", "value")))
        };
        close(law(532.92 * SCALES[4]), giant, 5e-3);
        // The notebook's in-sample error: known cells of the forecast table against the best of the three data sets.
        let rows = json(
            &project,
            &[
                "sql",
                "--format",
                "json",
                &format!(
                    "SELECT model, source_detail->>'samples_seen_pretty' AS scale, max(value) AS best, \
                     max(gmacs_samples / d) AS gmacs FROM observation WHERE sweep = 'openclip-2022' \
                     AND dataset || '/' || metric = '{metric}' GROUP BY 1, 2"
                ),
            ],
        );
        let mut misses = Vec::new();
        for row in rows["rows"].as_array().unwrap() {
            let scale = match row["scale"].as_str().expect("the label is kept") {
                "3B" => SCALES[1],
                "13B" => SCALES[2],
                "34B" => SCALES[3],
                other => panic!("{other}"),
            };
            let expected = law(row["gmacs"].as_f64().unwrap() * scale);
            misses.push((expected - 100.0 * row["best"].as_f64().unwrap()).abs());
        }
        assert_eq!(misses.len(), 11);
        close(misses.iter().sum::<f64>() / 11.0, error, 1e-5);
    }
    let hours = json(
        &project,
        &["sql", "--format", "json", "SELECT sum(gpu_hours) AS h FROM result WHERE sweep = 'openclip-2022'"],
    );
    close(hours["rows"][0]["h"].as_f64().unwrap(), 1_058_318.0, 1.0);

    let imagenet = ["--metric", "imagenet1k/acc1"];
    let giant =
        ["forecast", "openclip-2022", "--points", "bins:5", "--model", "ViT-G-14", "--samples", "68e9", "--json"];
    let forecast = json(&project, &[&giant[..], &imagenet].concat());
    let law = &forecast["law"];
    close(law["value"].as_f64().unwrap(), 0.1809, 5e-4);
    let (low, high) = (law["low"].as_f64().unwrap(), law["high"].as_f64().unwrap());
    let (wide_low, wide_high) =
        (forecast["prediction"]["low"].as_f64().unwrap(), forecast["prediction"]["high"].as_f64().unwrap());
    assert!(wide_low < low && low < 0.1809 && 0.1809 < high && high < wide_high, "{forecast}");

    let both =
        json(&project, &[&["compare", "openclip-2022", "openclip-2022-openai", "--json"], &imagenet[..]].concat());
    let alpha = &both["comparison"]["differences"].as_array().unwrap()[1];
    close(alpha["a"].as_f64().unwrap(), -0.101_25, 1e-5);
    close(alpha["b"].as_f64().unwrap(), -0.163_8, 1e-4);
    assert_eq!(both["comparison"]["cautions"][0]["caution"], "few_jobs");

    let surface = ["--law", "additive", "--json", "--resamples", "200"];
    let frontier =
        json(&project, &[&["frontier", "openclip-2022", "--budget", "1e13"], &imagenet[..], &surface].concat());
    let best = &frontier["frontier"]["allocations"][0];
    assert_eq!(best["edge"], "above_observed");
    let cost = best["samples_seen"]["value"].as_f64().unwrap();
    assert!((1e9..1e12).contains(&cost), "{best}");

    let judged = json(
        &project,
        &[&["backtest", "openclip-2022", "--among", "power", "--among", "chinchilla", "--json"], &imagenet[..]]
            .concat(),
    );
    assert_eq!(judged["choice"]["default"], "additive");
    assert!(judged["choice"]["contenders"].as_array().unwrap().len() >= 6);
}

/// Sixteen rows of a known Chinchilla law.
fn table() -> String {
    let mut text = "size,tokens,loss".to_owned();
    for n in [1e6, 4e6, 1.6e7, 6.4e7] {
        for d in [1e7, 4e7, 1.6e8, 6.4e8] {
            let loss = 1.69 + 406.4 / f64::powf(n, 0.34) + 410.7 / f64::powf(d, 0.28);
            let _ = write!(text, "\n{n},{d},{loss}");
        }
    }
    text.push('\n');
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn any_table_can_be_fitted_and_asked() {
    let project = Project::new();
    project.store().await;
    std::fs::write(project.path().join("runs.csv"), table()).unwrap();
    project.ok(&[
        "import",
        "csv",
        "runs.csv",
        "--name",
        "table",
        "--compute",
        "six_nd",
        "--map",
        "n=size",
        "--map",
        "d=tokens",
        "--map",
        "c=6*n*d",
        "--map",
        "loss=loss",
    ]);
    let fit = json(&project, &["fit", "table", "--metric", "table/loss", "--law", "chinchilla", "--json"]);
    for (name, value) in [("A", 406.4), ("B", 410.7), ("E", 1.69), ("alpha", 0.34), ("beta", 0.28)] {
        close(parameter(&fit, name, "value") / value, 1.0, 1e-6);
    }
    let held = json(
        &project,
        &["fit", "table", "--metric", "table/loss", "--law", "chinchilla", "--fix", "alpha=0.34", "--json"],
    );
    assert_eq!(held["parameters"].as_array().unwrap()[3]["frozen"], true);
    let some = ["fit", "table", "--metric", "table/loss", "--where", "n < 2e7", "--json"];
    assert_eq!(json(&project, &some)["observations"].as_array().unwrap().len(), 12);
    // The optimum under 6ND of this law, in closed form: N* = G (C/6)^(beta/(alpha+beta)).
    let (alpha, beta): (f64, f64) = (0.34, 0.28);
    let g = (alpha * 406.4 / (beta * 410.7)).powf(1.0 / (alpha + beta));
    let frontier = json(
        &project,
        &["frontier", "table", "--metric", "table/loss", "--law", "chinchilla", "--budget", "1e18", "--json"],
    );
    let best = frontier["frontier"]["allocations"][0]["parameters"]["value"].as_f64().unwrap();
    close(best / (g * (1e18f64 / 6.0).powf(beta / (alpha + beta))), 1.0, 1e-5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_says_why() {
    let project = Project::new();
    project.store().await;
    std::fs::write(project.path().join("runs.csv"), table()).unwrap();
    project.ok(&[
        "import",
        "csv",
        "runs.csv",
        "--name",
        "table",
        "--compute",
        "six_nd",
        "--map",
        "n=size",
        "--map",
        "d=tokens",
        "--map",
        "c=6*n*d",
        "--map",
        "loss=loss",
    ]);
    let metric = ["--metric", "table/loss"];
    for (args, code, words) in [
        (&["fit", "table", "--law", "chinchila"][..], 2, "allowed are power"),
        (&["fit", "table", "--objective", "l2"][..], 2, "is no objective"),
        (&["fit", "table", "--where", "loss <"][..], 2, "can't be used"),
        (&["fit", "table", "--where", "n < 2e6", "--law", "chinchilla"][..], 1, "needs at least 6"),
        (&["fit", "table", "--where", "n < 2e6"][..], 1, "too few jobs"),
        (&["fit", "table", "--where", "c IS NULL OR n = 1e6", "--law", "chinchilla-tied"][..], 2, "column"),
        (&["fit", "table", "--fix", "gamma=1"][..], 2, "can't hold `gamma`"),
        (&["fit", "table", "--law", "additive"][..], 1, "says its unique samples"),
        (&["forecast", "table", "--law", "chinchilla"][..], 2, "--samples"),
        (&["forecast", "table", "--samples", "1e9"][..], 2, "--model"),
        (&["forecast", "table", "--samples", "1e9", "--model", "ViT-B-33"][..], 2, "did you mean"),
        (&["frontier", "table", "--law", "chinchilla", "--budget", "0"][..], 2, "above zero"),
        (&["backtest", "table", "--hold-out", "rolling:X"][..], 2, "rolling:C"),
        (&["compare", "table", "tabel"][..], 2, "did you mean `table`"),
    ] {
        let output = project.output(&[args, &metric[..]].concat());
        let text = transcript(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(words), "{args:?}: {text}");
    }
    let laws = project.ok(&["laws"]);
    for name in
        ["power", "saturating", "shifted", "m4", "bnsl", "chinchilla", "repeated", "additive", "bounded", "downstream"]
    {
        assert!(laws.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}: {laws}");
    }
}
