//! How commands name jobs: by sweep, or by the first digits of a job's key.

use super::output::Failure;
use crate::store::{JobDetail, Store};

/// Digits that name a job at least.
const PREFIX_MIN: usize = 4;

/// The one job whose key starts with `prefix`.
pub(super) async fn job(store: &Store, prefix: &str) -> Result<JobDetail, Failure> {
    let hex = prefix.len() >= PREFIX_MIN && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut found = if hex { store.job_find(&prefix.to_ascii_lowercase()).await? } else { Vec::new() };
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::bad_input(format!("there is no job `{prefix}` here")).hint(format!(
            "a job is named by {PREFIX_MIN} or more first digits of its key, as `sweep status SWEEP` shows them"
        ))),
        _ => {
            let keys: Vec<&str> = found.iter().map(|job| &job.job_key[..16]).collect();
            Err(Failure::bad_input(format!("`{prefix}` is the start of several jobs"))
                .hint(format!("write more digits: {}", keys.join(", "))))
        }
    }
}

/// Rows of all jobs that `targets` name, each a sweep or a job.
pub(super) async fn jobs(store: &Store, targets: &[String]) -> Result<Vec<i64>, Failure> {
    let mut rows = Vec::new();
    for target in targets {
        match store.sweep_find(target).await? {
            Some(sweep_id) => rows.extend(store.job_ids(sweep_id).await?),
            None => rows.push(job(store, target).await?.job_id),
        }
    }
    Ok(rows)
}

/// The database, where anything is stored at all.
pub(super) async fn store() -> Result<Store, Failure> {
    Store::connect_stored().await?.ok_or_else(|| {
        Failure::bad_input("nothing has been launched here yet").hint("`sweep launch SPEC` starts a sweep")
    })
}
