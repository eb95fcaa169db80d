//! Where the page's numbers come from: fits, data, spec, and the queries that give them again.

use super::Report;
use super::html::table;
use super::sections::{short, whole};
use crate::text::escape;

/// Fits with the rows behind them, pools with their licences, the spec.
pub(super) fn provenance(report: &Report) -> String {
    let study = &report.study;
    let mut runners: Vec<String> =
        study.jobs.iter().map(|job| format!("{} {}", job.runner, job.runner_version)).collect();
    runners.sort();
    runners.dedup();
    let fits: Vec<Vec<String>> = report
        .panels()
        .flat_map(|panel| panel.fits.iter().map(move |one| (panel, one)))
        .filter_map(|(panel, one)| {
            let (fit, stored) = (one.fit.as_ref().ok()?, one.stored.as_ref()?);
            Some(vec![
                stored.fit_id.to_string(),
                escape(&panel.name()),
                escape(&one.policy),
                format!("<code>{}</code>", short(&stored.input_hash)),
                fit.method.solver.to_string(),
                format!("{} of {}", fit.resamples, fit.resamples_asked),
            ])
        })
        .collect();
    let fits = if fits.is_empty() {
        "<p>No fit was stored.</p>\n".to_owned()
    } else {
        table(&["fit", "metric", "points", "sha256 of its rows", "solver", "resamples"], 9, &fits)
    };
    format!(
        "<h2>Provenance</h2>\n<p>sweep {}, bootstrap seed {}, runner {}; database time \
         {}.</p>\n<h3>Fits</h3>\n{fits}<h3>Data</h3>\n{}\
         <h3>Spec</h3>\n<details><summary>The YAML as last launched</summary>\n<pre>{}</pre></details>\n\
         <details><summary>Job keys</summary>\n<pre>{}</pre></details>\n",
        escape(&report.code_version),
        report.seed,
        escape(&runners.join(", ")),
        study.read_at.format("%Y-%m-%d %H:%M:%S%.3f UTC"),
        pools(report),
        escape(study.spec.trim_end()),
        escape(&study.jobs.iter().map(|job| job.job_key.as_str()).collect::<Vec<_>>().join("\n"))
    )
}

fn pools(report: &Report) -> String {
    if report.study.pools.is_empty() {
        return "<p>No pool is recorded.</p>\n".to_owned();
    }
    let rows: Vec<Vec<String>> = report
        .study
        .pools
        .iter()
        .map(|pool| {
            let manifest: Option<protocol::PoolManifest> =
                pool.manifest.clone().and_then(|manifest| serde_json::from_value(manifest).ok());
            let sources = manifest.map_or("no manifest".to_owned(), |manifest| {
                let lines: Vec<String> = manifest
                    .sources
                    .iter()
                    .map(|source| {
                        format!("{} ({}), {} pairs", escape(&source.package), escape(&source.license), source.samples)
                    })
                    .collect();
                lines.join("<br>")
            });
            vec![
                escape(&pool.name),
                whole(pool.samples),
                format!("<code>{}</code>", escape(short(&pool.digest))),
                format!("<code>{}</code>", escape(&pool.path)),
                sources,
            ]
        })
        .collect();
    table(&["pool", "pairs", "sha256", "folder", "sources and licences"], 9, &rows)
}

/// Queries.
pub(super) fn sql(report: &Report) -> String {
    let name = report.study.name.replace('\'', "''");
    let queries = format!(
        "-- one row a job: axes, compute, final metrics, cost\nSELECT * FROM result WHERE sweep = '{name}';\n\n\
         -- what the fits used\nSELECT * FROM observation WHERE sweep = '{name}';\n\n\
         -- loss curves\nSELECT c.* FROM curve c JOIN result r USING (job_key) WHERE r.sweep = '{name}' AND c.metric \
          = 'loss';\n\n\
         -- fits with their rows\nSELECT f.* FROM fit f JOIN sweep s USING (sweep_id) WHERE s.name = '{name}';"
    );
    format!(
        "<h2>The numbers again</h2>\n<p>With <code>sweep sql \"QUERY\" --format csv</code>:</p>\n<pre>{}</pre>\n",
        escape(&queries)
    )
}
