//! Machines that fail: which to keep attempts away from.

use super::{Store, StoreError, doing};

/// A machine that an attempt is better not started on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailingNode {
    /// Name of the attempt, whose job has failed there before; `None`: whatever the attempt.
    pub token: Option<String>,
    /// Name of the machine.
    pub node: String,
}

impl Store {
    /// Machines to keep these attempts away from, of those that a backend runs them on. Counted are the last 24 hours.
    ///
    /// For its own job, a machine that an attempt crashed on, or was lost on with its worker or its node. For all, one
    /// where two attempts failed of which it was the machine's fault: its node failed, or the job got further on
    /// another machine; unless it has finished an attempt since.
    pub async fn nodes_failing(&self, backend: &str, tokens: &[String]) -> Result<Vec<FailingNode>, StoreError> {
        sqlx::query_as!(
            FailingNode,
            r#"WITH failed AS MATERIALIZED (
                   SELECT a.job_id, a.attempt_id, a.node, a.ended_at, coalesce(a.samples_seen, 0) AS reached, a.lost_to
                   FROM attempt a
                   WHERE a.node IS NOT NULL AND a.ended_at > now() - interval '24 hours' AND a.backend = $1
                         AND (a.state = 'failed' AND a.failure_kind = 'crash'
                              OR a.state = 'lost' AND coalesce(a.lost_to, 'unknown') IN ('node failure', 'unknown'))),
               of_node AS (
                   SELECT f.node, count(*) AS failures, max(f.ended_at) AS last FROM failed f
                   WHERE f.lost_to = 'node failure'
                         OR EXISTS (SELECT FROM attempt later
                                    WHERE later.job_id = f.job_id AND later.attempt_id > f.attempt_id AND later.node <> f.node
                                          AND (later.state = 'finished' OR later.samples_seen > f.reached))
                   GROUP BY f.node)
               SELECT NULL AS token, node AS "node!" FROM of_node
               WHERE failures >= 2
                     AND NOT EXISTS (SELECT FROM attempt good WHERE good.node = of_node.node AND good.state = 'finished'
                                                                    AND good.ended_at > of_node.last)
               UNION
               SELECT a.token, f.node FROM attempt a JOIN failed f USING (job_id) WHERE a.token = ANY ($2)
               ORDER BY 1, 2"#,
            backend,
            tokens
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("can't look for machines that fail"))
    }
}
