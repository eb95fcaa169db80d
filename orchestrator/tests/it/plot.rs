//! `sweep plot` and the analysis of `sweep report` by the binary: figures of a seeded database, and of the published
//! study.

use std::path::Path;

use crate::harness::Project;
use crate::report::{GRID, assert_self_contained, seeded};

const RECALL: &str = "emoji-val/image_retrieval_recall@5";

fn is_figure(path: &Path) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if path.extension().is_some_and(|end| end == "png") {
        assert!(bytes.starts_with(b"\x89PNG"), "{}", path.display());
        return;
    }
    let text = String::from_utf8(bytes).expect("SVG is text");
    assert!(text.starts_with("<?xml") && text.trim_end().ends_with("</svg>") && !text.contains("var(--"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_drawn_or_says_why_not() {
    let project = seeded(&[GRID]).await;
    let kinds = ["law", "residuals", "profile", "pairs", "policies", "backtest", "budget"];
    let common = ["--metric", RECALL, "--resamples", "120", "--starts", "6"];
    let printed = project.ok(&[&["plot", "grid"], &kinds[..], &common[..]].concat());
    let paths: Vec<&str> = printed.lines().collect();
    assert_eq!(paths.len(), 2 * kinds.len(), "{printed}");
    for (kind, pair) in kinds.iter().zip(paths.chunks(2)) {
        assert_eq!(pair, [format!("plots/grid/{kind}.svg"), format!("plots/grid/{kind}.png")]);
        for path in pair {
            is_figure(&project.path().join(path));
        }
    }

    let nd = ["plot", "grid", "frontier", "isoflop", "law", "--law", "chinchilla", "-o", "nd"];
    let drawn = project.output(&[&nd[..], &common[..]].concat());
    assert_eq!(drawn.status.code(), Some(0), "{}", crate::harness::transcript(&drawn));
    is_figure(&project.path().join("nd/frontier.svg"));

    // Some can't be drawn: the others are; none of them: exit code 1.
    let some = project.transcript(&[&["plot", "grid", "isoflop", "law", "comparison"], &common[..]].concat());
    assert!(some.starts_with("exit: 0\n----- stdout -----\nplots/grid/law.svg\n"), "{some}");
    assert!(
        some.contains("isoflop: not drawn: an IsoFLOP analysis needs a law of both N and D; `power` is none"),
        "{some}"
    );
    assert!(
        some.contains("comparison: not drawn: no other sweep is named\n  hint: name it: --against SWEEP"),
        "{some}"
    );
    let none = project.output(&[&["plot", "grid", "frontier"], &common[..]].concat());
    assert_eq!(none.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_held_out_are_drawn_open_and_not_fitted() {
    let project = seeded(&[GRID]).await;
    let args = ["plot", "grid", "law", "--metric", RECALL, "--hold-out", "model = 'vit-cpu-l'", "--resamples", "120"];
    assert_eq!(project.ok(&[&args[..], &["-o", "one.svg"]].concat()), "one.svg\n");
    let svg = std::fs::read_to_string(project.path().join("one.svg")).unwrap();
    assert!(svg.contains("held out: 6") && svg.contains("fitted: 12"), "the legend counts them");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_says_what_is_allowed() {
    let project = seeded(&[GRID]).await;
    let kind = project.transcript(&["plot", "grid", "residual", "--metric", RECALL]);
    assert!(kind.starts_with("exit: 2") && kind.contains("residuals") && kind.contains("frontier"), "{kind}");
    for (args, said) in [
        (vec!["plot", "gird", "law"], "did you mean `grid`?"),
        (vec!["plot", "grid", "law", "pairs", "--metric", RECALL, "-o", "x.svg"], "can hold one figure, not 2"),
        (vec!["plot", "grid", "law", "--metric", RECALL, "--hold-out", "modle = 'x'"], "can't be used"),
        (vec!["plot", "grid", "comparison", "--metric", RECALL, "--against", "other"], "no sweep `other`"),
        (vec!["report", "grid", "--forecast", "vit-cpu-m"], "ViT-G-14:68e9"),
        (vec!["report", "grid", "--forecast", "vit-cpu-x:1e6"], "there is no model `vit-cpu-x`"),
    ] {
        let said_at_all = project.transcript(&args);
        assert!(said_at_all.starts_with("exit: 2") && said_at_all.contains(said), "{args:?}\n{said_at_all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_states_what_its_laws_rest_on() {
    let project = seeded(&[GRID]).await;
    let args = ["report", "grid", "--metric", RECALL, "--forecast", "vit-cpu-l:1e6", "--against", "grid"];
    let path = project.ok(&args);
    let html = std::fs::read_to_string(project.path().join(path.trim())).unwrap();
    assert_self_contained(&html);
    for text in [
        "What the law rests on",
        "vit-cpu-l on 1M samples",
        "the choice of points alone moves the forecast from",
        "Residuals",
        "Resamples of the parameters",
        "Laws and objectives by held-out error",
        "Frontier: best N, D and U for a compute",
    ] {
        assert!(html.contains(text), "the page lacks `{text}`");
    }
    // Marks of runs name their jobs, as those of the headline's figure do.
    for title in ["Comparison", "Choice of points", "Residuals", "Back-test of the largest run"] {
        let part = html.split(&format!("<summary>{title}</summary>")).nth(1).expect("it is there");
        assert!(part.split("</details>").next().unwrap().contains("<g class=\"j\" data-j=\""), "{title}");
    }
    is_figure(&project.path().join("reports/grid/figures/policies-emoji-val-image_retrieval_recall-5.svg"));

    // What it computed is known to the next one, and shown as it was.
    let known = |more: &[&str]| {
        let said = project.output(&[&args[..], &["-o", "again"], more].concat());
        String::from_utf8_lossy(&said.stderr).contains("analyses: 0 computed, 1 known from before")
    };
    assert!(known(&[]) && !known(&["--seed", "7"]) && known(&[]));
    let again = std::fs::read_to_string(project.path().join("again/index.html")).unwrap();
    let analysis = |html: &str| html[html.find("What the law rests on").expect("it is there")..].to_owned();
    let end = "<h2>Laws</h2>";
    let part = |html: &str| analysis(html).split(end).next().unwrap().to_owned();
    assert_eq!(part(&html), part(&again));
}

#[test]
fn the_2022_study_is_drawn() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/scaling-laws-openclip");
    if !folder.exists() {
        eprintln!("skipped: the published results are not beside this checkout ({})", folder.display());
        return;
    }
    let project = Project::new();
    project.ok(&["import", "openclip-2022", folder.to_str().expect("text")]);
    let metric = ["--metric", "imagenet1k/acc1", "--points", "bins:5", "--resamples", "200"];
    let output = project.output(
        &[
            &["plot", "openclip-2022", "policies", "comparison"],
            &metric[..],
            &["--also", "mscoco_captions/image_retrieval_recall@5", "--against", "openclip-2022-openai"],
            &["--model", "ViT-G-14", "--samples", "68431790112", "--reference", "81.92:published"],
        ]
        .concat(),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("moves the forecast from 79.0") && said.contains("(bins:3)"), "{said}");
    let svg = std::fs::read_to_string(project.path().join("plots/openclip-2022/comparison.svg")).unwrap();
    assert!(svg.contains("E = 5.86") && svg.contains("E = 23.2") && svg.contains("3 jobs, too few for intervals"));

    // Eleven cells of the study's table of forecasts were run: its mean absolute error, to the digits that it prints.
    let mut args = vec!["report", "openclip-2022", "--metric", "imagenet1k/acc1", "--points", "bins:5"];
    let models = ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-g-14"];
    let seen = ["2560013280", "13034626688", "34215895056"];
    let jobs: Vec<String> = models.iter().flat_map(|model| seen.iter().map(move |d| format!("{model}:{d}"))).collect();
    for job in &jobs {
        args.extend(["--forecast", job]);
    }
    let path = project.ok(&args);
    let html = std::fs::read_to_string(project.path().join(path.trim())).unwrap();
    assert!(
        html.contains("11 of these jobs were run") && html.contains("the mean absolute difference is 0.874 points")
    );
}
