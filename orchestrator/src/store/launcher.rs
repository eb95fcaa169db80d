//! What a launcher reads and records: attempts that live, the next jobs in plan order, intents and launches. Nothing
//! here grows with the size of a sweep.

use std::path::PathBuf;

use super::history::{History, count};
use super::{Store, StoreError, doing};

/// Where a launcher's workers run: slots belong to one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the backend.
    pub backend: &'static str,
    /// Name of the host, for people.
    pub host: String,
    /// Boot id and PID namespace: what tells hosts of one name apart.
    pub machine: String,
}

/// A job that is not done.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenJob {
    /// Row.
    pub job_id: i64,
    /// 64 hex digits.
    pub job_key: String,
    /// `pending`, `running`, `failed`, `cancelled`.
    pub state: String,
    /// What became of its attempts; of a job with a live attempt it is not read.
    pub history: History,
    /// What keeps it from being started for good: its parent's end.
    pub orphaned: Option<String>,
    /// The attempt that lives.
    pub live: Option<LiveAttempt>,
}

/// An attempt that lives.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveAttempt {
    /// Name.
    pub token: String,
    /// Name of its worker process on the backend.
    pub worker: String,
    /// `intent`, `launched` or `running`.
    pub state: String,
    /// Where it runs.
    pub backend: String,
    /// Name of the host.
    pub host: Option<String>,
    /// See [`Place::machine`].
    pub machine: Option<String>,
    /// Slot.
    pub slot: Option<i32>,
    /// The backend's name for the worker.
    pub handle: Option<String>,
    /// Folder.
    pub folder: String,
    /// Whether it was asked to stop.
    pub stop_requested: bool,
    /// Whether its worker reaches no database.
    pub spooled: bool,
    /// When it was recorded, seconds since 1970 on the database's clock.
    pub created_secs: f64,
    /// Last sign of life (heartbeat, launch or record), seconds since 1970 on the database's clock.
    pub seen_secs: f64,
}

impl LiveAttempt {
    /// Whether it is of this backend and machine. Rows without a machine are of an older version: the name decides.
    pub fn is_at(&self, place: &Place) -> bool {
        self.backend == place.backend
            && self.host.as_deref() == Some(place.host.as_str())
            && self.machine.as_deref().is_none_or(|machine| machine == place.machine)
    }
}

/// The next jobs to consider.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    /// Open jobs without a live attempt, in plan order.
    pub jobs: Vec<OpenJob>,
    /// Every job up to this position has ended or is in `jobs`; `None`: the sweep ends before the window.
    pub reached: Option<i32>,
    /// Position of the first open job of the window.
    pub first_open: Option<i32>,
}

/// An attempt to record.
#[derive(Debug, Clone)]
pub struct IntentRequest {
    /// Row of the job.
    pub job_id: i64,
    /// Its name, and its worker's on the backend.
    pub token: String,
    /// Its folder.
    pub folder: PathBuf,
}

/// What all attempts of one record share.
#[derive(Debug, Clone)]
pub struct SlotOffer<'a> {
    /// Where.
    pub place: &'a Place,
    /// Slots there.
    pub slots: usize,
    /// `cpu` or `cuda`.
    pub device: &'a str,
    /// Threads for arithmetic.
    pub threads: usize,
}

impl Store {
    /// The database's clock, seconds since 1970, and the jobs of a sweep with an attempt that lives. Says on the way
    /// that a launcher drives the sweep, once a second at most.
    pub async fn job_live(&self, sweep_id: i64) -> Result<(f64, Vec<OpenJob>), StoreError> {
        let failed = doing("can't read the attempts of the sweep");
        let now = sqlx::query_scalar!(
            r#"WITH quiet AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
                    seen AS (UPDATE sweep SET launcher_seen_at = clock_timestamp() FROM quiet
                             WHERE sweep_id = $1 AND (launcher_seen_at IS NULL OR launcher_seen_at NOT BETWEEN
                                                      clock_timestamp() - interval '1 s' AND clock_timestamp())
                             RETURNING 1)
               SELECT extract(epoch FROM clock_timestamp())::float8 AS "now!""#,
            sweep_id
        )
        .fetch_one(&self.pool)
        .await
        .map_err(&failed)?;
        let rows = sqlx::query!(
            r#"SELECT j.job_id, j.job_key, j.state,
                      a.token, coalesce(a.worker, a.token) AS "worker!", a.state AS attempt_state, a.backend, a.host, a.machine, a.slot,
                      a.handle, a.folder, a.stop_requested, a.ship = 'spool' AS "spooled!",
                      extract(epoch FROM a.created_at)::float8 AS "created_secs!",
                      extract(epoch FROM greatest(a.created_at, a.launched_at, a.claimed_at, a.heartbeat_at))::float8
                          AS "seen_secs!"
               FROM attempt a JOIN job j USING (job_id) JOIN sweep_job sj USING (job_id)
               WHERE sj.sweep_id = $1 AND a.state IN ('intent', 'launched', 'running')
               ORDER BY sj.position"#,
            sweep_id
        )
        .fetch_all(&self.pool)
        .await
        .map_err(&failed)?;
        let live = rows.into_iter().map(|row| OpenJob {
            job_id: row.job_id,
            job_key: row.job_key,
            state: row.state,
            history: History::default(),
            orphaned: None,
            live: Some(LiveAttempt {
                token: row.token,
                worker: row.worker,
                state: row.attempt_state,
                backend: row.backend,
                host: row.host,
                machine: row.machine,
                slot: row.slot,
                handle: row.handle,
                folder: row.folder,
                stop_requested: row.stop_requested,
                spooled: row.spooled,
                created_secs: row.created_secs,
                seen_secs: row.seen_secs,
            }),
        });
        Ok((now, live.collect()))
    }

    /// Says that no launcher drives the sweep from here any more: workers finish the jobs that they have. Another
    /// launcher says the contrary within a second.
    pub async fn launcher_leave(&self, sweep_id: i64) -> Result<(), StoreError> {
        sqlx::query!("UPDATE sweep SET launcher_seen_at = NULL WHERE sweep_id = $1", sweep_id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(doing("can't record that the launcher leaves"))
    }

    /// Pending jobs among the `rows` jobs of a sweep that follow position `after`, at most `limit` of them, with what
    /// became of their attempts. Jobs that wait for their parents, of the same sweep, are left out. A parent that the
    /// sweep does not ask for any more is not waited for: its job then begins with what there is.
    pub async fn job_window(&self, sweep_id: i64, after: i32, rows: i64, limit: i64) -> Result<Window, StoreError> {
        let failed = doing("can't read the next jobs of the sweep");
        let found = sqlx::query!(
            r#"WITH given AS MATERIALIZED (
                   SELECT job_id, position FROM sweep_job WHERE sweep_id = $1 AND position > $2 ORDER BY position LIMIT $3),
               open AS MATERIALIZED (
                   SELECT given.position, j.job_id, j.job_key, j.state, j.retries_granted,
                          p.job_key AS parent_key, p.state AS parent_state, p.reason AS parent_reason,
                          EXISTS (SELECT FROM attempt a WHERE a.job_id = j.job_id AND a.state IN ('intent', 'launched', 'running'))
                              AS lives
                   FROM given JOIN job j USING (job_id)
                   LEFT JOIN sweep_job parents ON parents.job_id = j.parent AND parents.sweep_id = $1
                   LEFT JOIN job p ON p.job_id = parents.job_id
                   WHERE j.state IN ('pending', 'running')),
               ready AS MATERIALIZED (
                   SELECT * FROM open
                   WHERE state = 'pending' AND NOT lives AND coalesce(parent_state, 'done') NOT IN ('pending', 'running')
                   ORDER BY position LIMIT $4)
               SELECT ready.job_id AS "job_id?", ready.job_key AS "job_key?", ready.state AS "state?",
                      h.crashes AS "crashes?", h.lost AS "lost?", h.node_failures AS "node_failures?",
                      h.out_of_memory AS "out_of_memory?", h.preempted AS "preempted?", h.stalled AS "stalled?",
                      h.no_space AS "no_space?", h.last_end_secs, h.last_reason,
                      CASE WHEN ready.parent_state <> 'done'
                           THEN format('job %s, which it goes on from, %s', left(ready.parent_key, 12),
                                       CASE ready.parent_state WHEN 'failed' THEN 'has failed' ELSE 'was cancelled' END
                                       || coalesce(': ' || ready.parent_reason, '')) END AS orphaned,
                      (SELECT max(position) FROM given) AS reached, (SELECT min(position) FROM open) AS first_open
               FROM (SELECT) one LEFT JOIN ready ON true
               LEFT JOIN LATERAL job_history(ready.job_id, ready.retries_granted) h ON true
               ORDER BY ready.position"#,
            sweep_id,
            after,
            rows,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .map_err(&failed)?;
        let mut window = Window::default();
        for row in found {
            (window.reached, window.first_open) = (row.reached, row.first_open);
            let (Some(job_id), Some(job_key), Some(state)) = (row.job_id, row.job_key, row.state) else { continue };
            window.jobs.push(OpenJob {
                job_id,
                job_key,
                state,
                history: History {
                    crashes: count(row.crashes),
                    lost: count(row.lost),
                    node_failures: count(row.node_failures),
                    out_of_memory: count(row.out_of_memory),
                    preempted: count(row.preempted),
                    stalled: count(row.stalled),
                    no_space: count(row.no_space),
                    last_reason: row.last_reason,
                    last_end_secs: row.last_end_secs,
                },
                orphaned: row.orphaned,
                live: None,
            });
        }
        Ok(window)
    }

    /// Position of the first job of a sweep that is pending or running, or has an attempt that lives: where a launcher
    /// goes on when it has been through the plan. `None`: every job has ended.
    pub async fn job_first_open(&self, sweep_id: i64) -> Result<Option<i32>, StoreError> {
        sqlx::query_scalar!(
            "SELECT min(sj.position) FROM sweep_job sj
             WHERE sj.sweep_id = $1
                   AND (sj.job_id IN (SELECT job_id FROM job WHERE state IN ('pending', 'running'))
                        OR sj.job_id IN (SELECT job_id FROM attempt WHERE state IN ('intent', 'launched', 'running')))",
            sweep_id
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't look for jobs that are not done"))
    }

    /// Records attempts of pending jobs that have none alive, in free slots of a machine, lowest first, as far as there
    /// are any. Gives token and slot of those that were recorded.
    pub async fn attempt_intend(
        &self,
        offer: &SlotOffer<'_>,
        requests: &[IntentRequest],
    ) -> Result<Vec<(String, i32)>, StoreError> {
        let job_ids: Vec<i64> = requests.iter().map(|request| request.job_id).collect();
        let tokens: Vec<String> = requests.iter().map(|request| request.token.clone()).collect();
        let folders: Vec<String> = requests.iter().map(|request| request.folder.display().to_string()).collect();
        let rows = sqlx::query!(
            r#"WITH given AS MATERIALIZED (
                   SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[]) WITH ORDINALITY AS given (job_id, token, folder, nth)),
               locked AS MATERIALIZED (
                   SELECT job_id FROM job WHERE job_id = ANY ($1) AND state = 'pending'
                   ORDER BY job_id FOR UPDATE SKIP LOCKED),
               free AS MATERIALIZED (
                   SELECT slot, row_number() OVER (ORDER BY slot) AS nth FROM generate_series(0, $7::integer - 1) AS free (slot)
                   WHERE NOT EXISTS (SELECT FROM attempt WHERE backend = $4 AND host = $5 AND coalesce(machine, $6) = $6
                                     AND attempt.slot = free.slot AND state IN ('intent', 'launched', 'running'))),
               ready AS MATERIALIZED (
                   SELECT given.*, row_number() OVER (ORDER BY given.nth) AS place FROM given JOIN locked USING (job_id)
                   WHERE NOT EXISTS (SELECT FROM attempt a WHERE a.job_id = given.job_id
                                     AND a.state IN ('intent', 'launched', 'running'))),
               recorded AS (
                   INSERT INTO attempt (job_id, token, worker, backend, host, machine, slot, folder, device, threads)
                   SELECT ready.job_id, ready.token, ready.token, $4, $5, $6, free.slot, ready.folder, $8, $9
                   FROM ready JOIN free ON free.nth = ready.place
                   ON CONFLICT DO NOTHING
                   RETURNING attempt_id, job_id, token, slot),
               noted AS (INSERT INTO event (job_id, attempt_id, kind) SELECT job_id, attempt_id, 'intent' FROM recorded)
               SELECT token, slot AS "slot!" FROM recorded ORDER BY slot"#,
            &job_ids,
            &tokens,
            &folders,
            offer.place.backend,
            offer.place.host,
            offer.place.machine,
            i32::try_from(offer.slots).unwrap_or(i32::MAX),
            offer.device,
            i32::try_from(offer.threads).unwrap_or(i32::MAX),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't record attempts"))?;
        Ok(rows.into_iter().map(|row| (row.token, row.slot)).collect())
    }

    /// Stores that the backend has these attempts, each under its handle. A hint that may be lost: an attempt whose
    /// handle is not known is found by its name.
    pub async fn attempt_launched(&self, launched: &[(String, String)]) -> Result<(), StoreError> {
        let (tokens, handles): (Vec<String>, Vec<String>) = launched.iter().cloned().unzip();
        sqlx::query!(
            "WITH quiet AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
             given AS (SELECT given.* FROM unnest($1::text[], $2::text[]) AS given (token, handle), quiet)
             UPDATE attempt SET handle = given.handle, launched_at = coalesce(launched_at, now()),
                    state = CASE state WHEN 'intent' THEN 'launched' ELSE state END
             FROM given WHERE attempt.token = given.token AND state IN ('intent', 'launched', 'running')",
            &tokens,
            &handles,
        )
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(doing("can't record a launch"))
    }

    /// Live attempts at a place that this sweep doesn't ask for: of another sweep, or of cells its spec no longer has.
    /// Fresh ones are left to whoever launches them.
    pub async fn attempt_elsewhere(&self, place: &Place, sweep_id: i64) -> Result<Vec<KnownAttempt>, StoreError> {
        self.attempt_at(place, None, Some(sweep_id), 30.0).await
    }

    /// Those of these attempts that live.
    pub async fn attempts_live(&self, tokens: &[String]) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!(
            "SELECT token FROM attempt WHERE token = ANY ($1) AND state IN ('intent', 'launched', 'running')",
            tokens
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read which attempts live"))
    }

    /// Whether a backend has live attempts of these jobs.
    pub async fn attempt_exists(&self, backend: &str, job_ids: &[i64]) -> Result<bool, StoreError> {
        sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM attempt WHERE backend = $1 AND job_id = ANY ($2)
                              AND state IN ('intent', 'launched', 'running')) AS "exists!""#,
            backend,
            job_ids
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't look for live attempts"))
    }

    /// Live attempts of these jobs at a place.
    pub async fn attempt_of_jobs(&self, place: &Place, job_ids: &[i64]) -> Result<Vec<KnownAttempt>, StoreError> {
        self.attempt_at(place, Some(job_ids), None, 0.0).await
    }

    async fn attempt_at(
        &self,
        place: &Place,
        of_jobs: Option<&[i64]>,
        not_of_sweep: Option<i64>,
        older_than_secs: f64,
    ) -> Result<Vec<KnownAttempt>, StoreError> {
        sqlx::query_as!(
            KnownAttempt,
            r#"SELECT token, coalesce(worker, token) AS "worker!", handle, state = 'intent' AS "intent!",
                      greatest(extract(epoch FROM clock_timestamp()
                               - greatest(created_at, launched_at, claimed_at, heartbeat_at))::float8, 0) AS "silent_secs!"
               FROM attempt a
               WHERE backend = $1 AND host = $2 AND coalesce(machine, $3) = $3 AND state IN ('intent', 'launched', 'running')
                     AND created_at <= now() - make_interval(secs => $4)
                     AND ($5::bigint[] IS NULL OR a.job_id = ANY ($5))
                     AND NOT EXISTS (SELECT FROM sweep_job sj WHERE sj.job_id = a.job_id AND sj.sweep_id = $6)"#,
            place.backend,
            place.host,
            place.machine,
            older_than_secs,
            of_jobs,
            not_of_sweep
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't read the attempts of this machine"))
    }

    /// Slots of a place that live workers hold, whoever launched them.
    pub async fn slots_taken(&self, place: &Place) -> Result<i64, StoreError> {
        sqlx::query_scalar!(
            r#"SELECT count(DISTINCT coalesce(worker, token)) AS "taken!" FROM attempt
               WHERE backend = $1 AND host = $2 AND coalesce(machine, $3) = $3 AND state IN ('intent', 'launched', 'running')"#,
            place.backend,
            place.host,
            place.machine
        )
        .fetch_one(&self.pool)
        .await
        .map_err(doing("can't count the slots in use"))
    }
}

/// A live attempt at a place.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownAttempt {
    /// Name.
    pub token: String,
    /// Name of its worker process.
    pub worker: String,
    /// The backend's name for the worker.
    pub handle: Option<String>,
    /// Whether it was only recorded.
    pub intent: bool,
    /// Seconds since its last sign of life, by the database's clock.
    pub silent_secs: f64,
}
