//! The store against a real PostgreSQL: its life, its views, and `sweep sql`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use insta::assert_snapshot;
use nix::sys::signal::{Signal, kill};
use sqlx::Connection;
use sweep::store::StateCounts;

use crate::harness::{Project, sweep, transcript};

mod life {
    use super::*;

    #[test]
    fn start_stop_start() {
        let project = Project::new();
        let state = |project: &Project| project.ok(&["db", "status"]).lines().nth(1).expect("a second line").to_owned();
        assert_eq!(state(&project), "state       down");
        assert_snapshot!(project.transcript(&["db", "stop"]), @r"
        exit: 0
        ----- stdout -----
        ----- stderr -----
        the private database in [PROJECT]/.sweep/postgres was not running
        ");
        project.ok(&["db", "start"]);
        assert_eq!(state(&project), "state       up");
        let first = project.postmaster();
        project.ok(&["db", "start"]);
        assert_eq!(project.postmaster(), first, "starting again starts nothing");
        assert_snapshot!(project.transcript(&["db", "stop"]), @r"
        exit: 0
        ----- stdout -----
        ----- stderr -----
        stopped the private database in [PROJECT]/.sweep/postgres
        ");
        assert_eq!(state(&project), "state       down");
        assert_eq!(project.ok(&["sql", "--format", "csv", "SELECT count(*) AS jobs FROM job"]), "jobs\n0\n");
        assert_ne!(project.postmaster(), first);
    }

    #[tokio::test]
    async fn killed_servers_come_back_with_what_was_committed() {
        let project = Project::new();
        let store = project.store().await;
        drop(store);
        for round in 1..=3 {
            let insert = format!("INSERT INTO sweep (name, spec) VALUES ('round {round}', '')");
            super::script(&project, &insert).await;
            kill(project.postmaster(), Signal::SIGKILL).expect("it is there");
            let count = project.ok(&["sql", "--format", "csv", "SELECT count(*) AS n FROM sweep"]);
            assert_eq!(count, format!("n\n{round}\n"));
        }
    }

    #[test]
    fn many_first_starts_at_once_make_one_cluster() {
        let project = Project::new();
        let start = || project.sweep(&["db", "start"]).stderr(Stdio::piped()).spawn().expect("sweep runs");
        let starts: Vec<_> = (0..4).map(|_| start()).collect();
        for start in starts {
            let output = start.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{}", transcript(&output));
        }
        project.postmaster();
    }

    #[test]
    fn a_path_too_long_or_too_odd_for_a_socket() {
        for name in ["long/".repeat(30), "white space, $HOME; \"quotes\" 'and' ü".to_owned()] {
            let project = Project::new_below(&name);
            assert_eq!(project.ok(&["sql", "--format", "csv", "SELECT 1 AS one"]), "one\n1\n");
            project.ok(&["db", "stop"]);
            project.ok(&["db", "start"]);
        }
    }

    #[test]
    fn a_folder_whose_name_is_no_line_of_text_is_refused_at_once() {
        let project = Project::new_below("two\nlines");
        for args in [&["db", "start"][..], &["db", "status"], &["sql", "SELECT 1"]] {
            let said = project.transcript(args);
            assert!(said.contains("can't hold the state of sweeps: its name has a control character"), "{said}");
            assert!(said.contains("hint: rename the folder, or set SWEEP_HOME"), "{said}");
        }
        assert!(!project.home().join("postgres").exists(), "nothing was begun");
        let latin1 = std::os::unix::ffi::OsStrExt::from_bytes(b"/caf\xe9/.sweep");
        let latin1 = std::path::Path::new::<std::ffi::OsStr>(latin1);
        let error = sweep::store::private_postgres::check_name(latin1).expect_err("it is not UTF-8");
        assert!(error.to_string().contains("is not UTF-8"), "{error}");
    }

    /// As root the server's user can't enter the project; as anybody else it is the same user.
    #[test]
    fn a_project_in_a_private_folder() {
        let project = Project::private();
        assert_eq!(project.ok(&["sql", "--format", "csv", "SELECT 1 AS one"]), "one\n1\n");
        let elsewhere = project.home().join("postgres").is_symlink();
        assert_eq!(elsewhere, nix::unistd::geteuid().is_root());
    }

    #[test]
    fn secrets_are_private() {
        let project = Project::new();
        let url = project.ok(&["db", "url"]);
        let password = url.trim().rsplit("password=").next().expect("a password").to_owned();
        assert_eq!(password.len(), 64, "{url}");
        let mode = |name: &str| {
            let path = project.home().join("postgres").join(name);
            path.metadata().expect("it is there").permissions().mode() & 0o777
        };
        assert_eq!([mode("password"), mode("data"), mode("socket"), mode("server.log")], [0o600, 0o700, 0o700, 0o600]);
        let said = project.transcript(&["db", "status", "--json"]) + &project.transcript(&["doctor"]);
        assert!(!said.contains(&password));
        let leftovers: Vec<_> = ["password.initdb", "create.sql", "data.new"]
            .iter()
            .filter(|name| project.home().join("postgres").join(name).exists())
            .collect();
        assert!(leftovers.is_empty(), "{leftovers:?}");
        let processes: String = fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("cmdline")).ok())
            .collect();
        assert!(!processes.contains(&password));
    }

    #[test]
    fn another_major_version_is_said() {
        let project = Project::new();
        project.ok(&["db", "start"]);
        project.ok(&["db", "stop"]);
        fs::write(project.home().join("postgres/data/PG_VERSION"), "9\n").expect("it is ours");
        let said = project.transcript(&["db", "start"]);
        assert!(said.starts_with("exit: 3"), "{said}");
        assert!(said.contains("is of PostgreSQL 9; the programs found are of "), "{said}");
        assert!(said.contains("hint: set SWEEP_PG_BIN to the programs of PostgreSQL 9"), "{said}");
    }
}

mod named_database {
    use super::*;

    fn with_url(url: &str) -> String {
        let project = Project::new();
        let output = sweep(project.path(), &["sql", "SELECT 1"]).env("DATABASE_URL", url).output().expect("sweep runs");
        transcript(&output)
    }

    #[test]
    fn unusable_urls() {
        assert_snapshot!(with_url("mysql://me:secret@host/db"), @r"
        exit: 3
        ----- stdout -----
        ----- stderr -----
        error: DATABASE_URL is not the URL of a PostgreSQL database: it starts with `mysql:`, not with `postgres:`

        hint: write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE, or unset it to use a private database
        ");
        assert_snapshot!(with_url("postgres://me:secret@127.0.0.1:1/db"), @r"
        exit: 3
        ----- stdout -----
        ----- stderr -----
        error: can't connect to the database db at 127.0.0.1:1
          caused by: error communicating with database: Connection refused (os error 111)
          caused by: Connection refused (os error 111)

        hint: start the server that DATABASE_URL names, or unset it to use a private database
        ");
    }

    #[test]
    fn the_url_that_is_printed_can_be_used() {
        let project = Project::new();
        let url = project.ok(&["db", "url"]).trim().to_owned();
        let mut query = project.sweep(&["sql", "--format", "csv", "SELECT 1 AS one"]);
        let output = query.env("DATABASE_URL", &url).env("SWEEP_HOME", "nowhere").output().expect("sweep runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "one\n1\n");
        assert!(!project.path().join("nowhere").exists());
        let wrong = url.replace("password=", "password=x");
        let output = project.sweep(&["sql", "SELECT 1"]).env("DATABASE_URL", wrong).output().expect("sweep runs");
        let said = transcript(&output);
        assert!(said.contains("hint: check the user and the password in DATABASE_URL"), "{said}");
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused() {
        let project = Project::new();
        project.store().await;
        script(
            &project,
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9000, 'of the future', true, '', 0)",
        )
        .await;
        assert_snapshot!(project.transcript(&["sql", "SELECT 1"]), @r"
        exit: 3
        ----- stdout -----
        ----- stderr -----
        error: the database has schema version 9000; this `sweep` knows versions up to 19

        hint: use the newer `sweep`, or another database
        ");
    }
}

#[tokio::test]
async fn old_fits_to_grouped_recalls_are_named_so() {
    let project = Project::new();
    project.store().await;
    let fits = "INSERT INTO sweep (name, spec) VALUES ('s', '');
        INSERT INTO pool (digest, name, path, samples) VALUES (repeat('a', 64), 'p', '/p', 100);
        INSERT INTO job (job_key, state, spec, runner, runner_version, model, parameters, image_parameters, text_parameters, pool,
                         data_size, samples_seen, unique_samples, seed, gmacs_samples, train_flops, six_nd)
        SELECT repeat(n::text, 64), 'done', '{}', 'clip', version, 'm', 10, 5, 5, repeat('a', 64), 50, 100, 50, 0, 1000, 6000, 6000
        FROM (VALUES (1, '0.4.0'), (2, '0.5.0')) AS given (n, version);
        INSERT INTO fit (sweep_id, dataset, metric, points, compute, law, parameters, verdict, seed, code_version, input_hash, observations,
                         identity, created_at)
        SELECT 1, name, 'image_retrieval_recall@5', 'all', 'six_nd', 'law', '{}', 'scaling', 0, '1', 'hash',
               jsonb_build_object('rows', (SELECT jsonb_agg(jsonb_build_object('job_key', repeat(n, 64))) FROM unnest(jobs) n)),
               name, at
        FROM (VALUES ('old', ARRAY['1'], '2020-01-01'::timestamptz), ('mixed', ARRAY['1', '2'], '2020-01-01'),
                     ('foreign', ARRAY['3'], '2020-01-01'), ('new', ARRAY['1'], 'infinity')) AS given (name, jobs, at);";
    script(&project, fits).await;
    for _ in 0..2 {
        script(&project, include_str!("../../../migrations/0015_fit_metric.sql")).await;
        let said = project.ok(&["sql", "--format", "csv", "SELECT dataset, metric, identity FROM fit ORDER BY fit_id"]);
        assert_eq!(
            said,
            "dataset,metric,identity\nold,image_retrieval_recall_grouped@5,before 0015: old\n\
             mixed,image_retrieval_recall@5,mixed\nforeign,image_retrieval_recall@5,foreign\n\
             new,image_retrieval_recall@5,new\n"
        );
    }
}

/// Statements run as psql would run them.
async fn script(project: &Project, sql: &str) {
    let options = sweep::store::private_postgres::ensure_running(&project.home()).expect("it starts").options();
    let mut connection = sqlx::PgConnection::connect_with(&options).await.expect("it answers");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("the script is right");
}

mod sql {
    use super::*;

    #[test]
    fn only_reads() {
        let project = Project::new();
        let refused = |query: &str| {
            let said = project.transcript(&["sql", query]);
            assert!(said.starts_with("exit: 2"), "{query}:\n{said}");
            said
        };
        assert_snapshot!(refused("INSERT INTO sweep (name, spec) VALUES ('a', '')"), @r#"
        exit: 2
        ----- stdout -----
        ----- stderr -----
        error: only one query can run here: SELECT, WITH, VALUES, TABLE, EXPLAIN or SHOW (syntax error at or near "INSERT")

        hint: `psql "$(sweep db url)"` opens the database as a role that may write
        "#);
        assert_snapshot!(refused("COMMIT; DROP TABLE sweep"), @r#"
        exit: 2
        ----- stdout -----
        ----- stderr -----
        error: only one query can run here: SELECT, WITH, VALUES, TABLE, EXPLAIN or SHOW (these are several statements)

        hint: `psql "$(sweep db url)"` opens the database as a role that may write
        "#);
        assert_snapshot!(refused("WITH a AS (DELETE FROM sweep RETURNING 1) SELECT * FROM a"), @r#"
        exit: 2
        ----- stdout -----
        ----- stderr -----
        error: only one query can run here: SELECT, WITH, VALUES, TABLE, EXPLAIN or SHOW (a query must not contain data-modifying statements in WITH)

        hint: `psql "$(sweep db url)"` opens the database as a role that may write
        "#);
        for query in [
            "COMMIT",
            "DROP TABLE sweep",
            "SET TRANSACTION READ WRITE",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "DO $$ BEGIN COMMIT; DELETE FROM sweep; END $$",
            "SELECT nextval('sweep_sweep_id_seq')",
            "SELECT * FROM sweep FOR UPDATE",
            "EXPLAIN ANALYZE DELETE FROM sweep",
            "SELECT set_config('transaction_read_only', 'off', true), nextval('sweep_sweep_id_seq')",
            "SELECT set_config('role', 'sweep', true), pg_read_file('postgresql.conf')",
            "SELECT lo_export(1, '/tmp/x')",
            "/* SELECT */ UPDATE sweep SET name = ''",
        ] {
            refused(query);
        }
        assert_eq!(project.ok(&["sql", "-f", "csv", "SELECT count(*) AS n FROM sweep"]), "n\n0\n");
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        let project = Project::new();
        assert_snapshot!(project.transcript(&["sql", "SELECT model,\n       lss FROM result"]), @r#"
        exit: 2
        ----- stdout -----
        ----- stderr -----
        error: column "lss" does not exist
          line 2:        lss FROM result
                         ^
        "#);
        assert_snapshot!(project.transcript(&["sql", "--timeout", "0.2", "SELECT pg_sleep(60)"]), @r"
        exit: 2
        ----- stdout -----
        ----- stderr -----
        error: the query ran for longer than 0.2 s

        hint: give it longer: `--timeout SECS`
        ");
        assert_snapshot!(project.transcript(&["sql", " "]), @r"
        exit: 2
        ----- stdout -----
        ----- stderr -----
        error: the query is empty

        hint: `sweep sql` without a query opens psql
        ");
        assert_snapshot!(project.transcript(&["sql", "-f", "parquet", "SELECT 1"]), @r"
        exit: 2
        ----- stdout -----
        ----- stderr -----
        error: Parquet can't go to standard output

        hint: name a file: `-o rows.parquet`
        ");
    }

    const EVERY_TYPE: &str = r#"
        SELECT true AS flag, 9007199254740993 AS whole, 0.1::float8 AS real, 'NaN'::float8 AS nan, 12.50 AS "exact",
               'a,"b"' AS text, '' AS empty, NULL::text AS missing, NULL::int AS no_number, '{"b": [1, null]}'::jsonb AS object,
               ARRAY[1, NULL, 3] AS list, '2026-01-02 03:04:05.5+01'::timestamptz AS moment, '1 day 2 h'::interval AS span,
               1 AS flag
        UNION ALL SELECT false, -1, 1e300, '-Infinity', 'NaN', 'ü', ' ', 'x', 7, '[]', '{}', 'infinity', '0', 2"#;

    #[test]
    fn every_type_as_a_table_and_as_csv() {
        let project = Project::new();
        assert_snapshot!(project.ok(&["sql", EVERY_TYPE]), @r#"
        flag              whole   real   nan  exact  text   empty  missing  no_number  object            list        moment                  span            flag_2
        true   9007199254740993    0.1   NaN   12.5  a,"b"                             {"b": [1, null]}  {1,NULL,3}  2026-01-02T02:04:05.5Z  1 day 02:00:00       1
        false                -1  1e300  -inf    NaN  ü             x                7  []                {}          infinity                00:00:00             2
        "#);
        assert_snapshot!(project.ok(&["sql", "--format", "csv", EVERY_TYPE]), @r#"
        flag,whole,real,nan,exact,text,empty,missing,no_number,object,list,moment,span,flag_2
        true,9007199254740993,0.1,NaN,12.5,"a,""b""","",,,"{""b"": [1, null]}","{1,NULL,3}",2026-01-02T02:04:05.5Z,1 day 02:00:00,1
        false,-1,1e+300,-inf,NaN,ü, ,x,7,[],{},infinity,00:00:00,2
        "#);
    }

    #[test]
    fn json_reads_back() {
        let project = Project::new();
        let text = project.ok(&["sql", "--format", "json", EVERY_TYPE]);
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(answer["schema"], "sweep.sql/1");
        assert_eq!(answer["truncated"], false);
        assert_eq!(answer["columns"][1], serde_json::json!({"name": "whole", "type": "integer"}));
        let row = &answer["rows"][0];
        assert_eq!(row["whole"], 9_007_199_254_740_993_i64);
        assert_eq!(row["nan"], "NaN");
        assert_eq!(row["exact"], 12.5);
        assert_eq!(row["missing"], serde_json::Value::Null);
        assert_eq!(row["object"], serde_json::json!({"b": [1, null]}));
        assert_eq!(row["moment"], "2026-01-02T02:04:05.5Z");
        assert_eq!(row["flag_2"], 1);
        assert_eq!(answer["rows"][1]["nan"], "-inf");
    }

    #[test]
    fn parquet_reads_back() {
        use polars::prelude::{DataType, ParquetReader, SerReader};
        let project = Project::new();
        project.ok(&["sql", EVERY_TYPE, "-o", "rows.parquet"]);
        let file = fs::File::open(project.path().join("rows.parquet")).expect("written");
        let frame = ParquetReader::new(file).finish().expect("Parquet");
        assert_eq!(frame.shape(), (2, 14));
        let column = |name: &str| frame.column(name).expect("a column");
        assert_eq!(column("flag").dtype(), &DataType::Boolean);
        assert_eq!(column("whole").i64().expect("integers").get(0), Some(9_007_199_254_740_993));
        assert!(column("nan").f64().expect("floats").get(0).expect("not NULL").is_nan());
        assert_eq!(column("no_number").i64().expect("integers").get(0), None);
        assert_eq!(column("text").str().expect("text").get(0), Some("a,\"b\""));
    }

    #[test]
    fn rows_are_limited_and_none_still_have_names() {
        let project = Project::new();
        let series = "SELECT g AS n FROM generate_series(1, 25000) g";
        assert_snapshot!(project.transcript(&["sql", "-f", "csv", "--limit", "2", series]), @r"
        exit: 0
        ----- stdout -----
        n
        1
        2
        ----- stderr -----
        stopped after 2 rows; `--limit 0` fetches all
        ");
        assert_eq!(project.ok(&["sql", "-f", "csv", "--limit", "0", series]).lines().count(), 25_001);
        assert_eq!(project.ok(&["sql", "-f", "csv", "SELECT model FROM result"]), "model\n");
        let json = project.ok(&["sql", "-f", "json", "SELECT model FROM result"]);
        assert_eq!(
            json,
            "{\"schema\":\"sweep.sql/1\",\"columns\":[{\"name\":\"model\",\"type\":\"text\"}],\"truncated\":false,\"rows\":[]}\n"
        );
        assert!(project.ok(&["sql", "EXPLAIN SELECT 1"]).contains("Result"));
        assert_eq!(project.ok(&["sql", "-f", "csv", "SHOW transaction_read_only"]), "transaction_read_only\non\n");
    }
}

mod schema {
    use super::*;

    #[test]
    fn everything_is_commented() {
        let project = Project::new();
        let bare = project.ok(&[
            "sql",
            "-f",
            "csv",
            "SELECT c.relname, a.attname
             FROM pg_class c
             LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                       AND c.relname IN ('result', 'curve', 'observation', 'measurement')
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname <> '_sqlx_migrations'
                   AND (obj_description(c.oid, 'pg_class') IS NULL
                        OR a.attnum IS NOT NULL AND col_description(c.oid, a.attnum) IS NULL)
             ORDER BY 1, 2",
        ]);
        assert_eq!(bare, "relname,attname\n");
    }

    /// Two jobs: one resumed twice, from a checkpoint and then from an earlier one; one with a claimed attempt that
    /// started afresh.
    const RUNS: &str = "
        INSERT INTO pool (digest, name, path, samples) VALUES (repeat('a', 64), 'p', '/p', 100);
        INSERT INTO sweep (name, spec) VALUES ('s', '');
        INSERT INTO job (job_key, state, spec, runner, runner_version, model, parameters, image_parameters, text_parameters, pool,
                         data_size, samples_seen, unique_samples, seed, gmacs_samples, train_flops, six_nd)
        SELECT repeat(n::text, 64), 'done', '{}', 'clip', '1', 'm' || n, 10, 5, 5, repeat('a', 64), 50, 100, 50, 0, 1000, 6000, 6000
        FROM generate_series(1, 2) n;
        INSERT INTO sweep_job SELECT 1, job_id, 0 FROM job;
        INSERT INTO attempt (job_id, token, state, backend, folder, fence, resumed_from_samples, samples_seen, train_secs, device, threads)
        VALUES (1, 'a', 'lost', 'local', '/a', 1, 0, 60, 6, 'cpu', 2),
               (1, 'b', 'lost', 'local', '/b', 2, 40, 80, 4, 'cpu', 2),
               (1, 'c', 'finished', 'local', '/c', 3, 20, 100, 16, 'cpu', 2),
               (2, 'd', 'lost', 'local', '/d', 1, 0, 50, 5, 'cpu', 2),
               (2, 'e', 'finished', 'local', '/e', 2, 0, 100, 50, 'cpu', 2),
               (2, 'f', 'cancelled', 'local', '/f', NULL, NULL, 0, NULL, NULL, NULL);
        INSERT INTO metric_name (name) VALUES ('loss');
        -- A step every 10 samples; the value tells the attempt.
        INSERT INTO metric (attempt_id, metric_id, step, samples_seen, value)
        SELECT attempt_id, 1, s / 10, s, attempt_id
        FROM attempt, generate_series(resumed_from_samples + 10, samples_seen, 10) s WHERE fence IS NOT NULL;
        INSERT INTO evaluation (attempt_id, dataset, metric, samples_seen, value)
        SELECT attempt_id, 'val', 'acc1', s, attempt_id / 10.0
        FROM attempt, unnest(ARRAY[20, 50, 100]) s
        WHERE fence IS NOT NULL AND s > resumed_from_samples AND s <= samples_seen;";

    #[tokio::test]
    async fn views_count_each_step_once() {
        let project = Project::new();
        let store = project.store().await;
        script(&project, RUNS).await;
        let csv = |query: &str| project.ok(&["sql", "-f", "csv", query]);
        assert_snapshot!(
            csv("SELECT model, value AS attempt, string_agg(samples_seen::text, ' ' ORDER BY step) AS samples
                 FROM curve GROUP BY model, value ORDER BY 1, 2"), @r"
        model,attempt,samples
        m1,1.0,10 20
        m1,3.0,30 40 50 60 70 80 90 100
        m2,5.0,10 20 30 40 50 60 70 80 90 100
        ");
        assert_snapshot!(
            csv("SELECT job_id, samples_seen, attempt_id FROM measurement ORDER BY 1, 2"), @r"
        job_id,samples_seen,attempt_id
        1,20,1
        1,50,3
        1,100,3
        2,20,5
        2,50,5
        2,100,5
        ");
        assert_snapshot!(
            csv("SELECT sweep, model, epochs, train_loss, metrics, train_secs, attempts FROM result ORDER BY model"), @r#"
        sweep,model,epochs,train_loss,metrics,train_secs,attempts
        s,m1,2.0,3.0,"{""val/acc1"": 0.3}",26.0,3
        s,m2,2.0,5.0,"{""val/acc1"": 0.5}",55.0,3
        "#);
        assert_snapshot!(csv("SELECT model, dataset, metric, value, error FROM observation ORDER BY model"), @r"
        model,dataset,metric,value,error
        m1,val,acc1,0.3,0.7
        m2,val,acc1,0.5,0.5
        ");
        let throughput = store.throughput_list().await.expect("it is read");
        let speeds: Vec<_> = throughput.iter().map(|row| (&*row.model, row.secs_per_sample, row.attempts)).collect();
        assert_eq!(speeds, [("m1", 16.0 / 80.0, 1), ("m2", 0.5, 1)]);
    }

    #[tokio::test]
    async fn spikes_waits_and_energy_are_summed_as_they_should() {
        let project = Project::new();
        let _store = project.store().await;
        script(&project, RUNS).await;
        // Both attempts of the second job waited; the first of them counts no more, and its spike neither.
        let said = "
            INSERT INTO metric_name (name) VALUES ('data_wait_secs'), ('spikes'), ('rollbacks'), ('skipped_samples');
            INSERT INTO metric (attempt_id, metric_id, step, samples_seen, value)
            SELECT attempt_id, metric_id, step, 10 * step, value
            FROM (VALUES (4, 'data_wait_secs', 5, 0.5), (5, 'data_wait_secs', 5, 0.25), (4, 'spikes', 5, 4), (5, 'spikes', 5, 1),
                         (5, 'spikes', 10, 2), (5, 'rollbacks', 10, 2), (5, 'skipped_samples', 10, 60))
                 given (attempt_id, name, step, value) JOIN metric_name USING (name);
            UPDATE attempt SET gpu_joules = 50, machine_cpu_joules = 100, cpu_share = 0.25 WHERE job_id = 2 AND fence IS NOT NULL;
            UPDATE attempt SET gpu_joules = 50 WHERE attempt_id = 1;";
        script(&project, said).await;
        let csv = |query: &str| project.ok(&["sql", "-f", "csv", query]);
        assert_snapshot!(
            csv("SELECT model, data_wait_secs, spikes, rollbacks, skipped_samples, gpu_joules, cpu_joules FROM result ORDER BY 1"), @r"
        model,data_wait_secs,spikes,rollbacks,skipped_samples,gpu_joules,cpu_joules
        m1,,,,,,
        m2,0.75,2,2,60,100.0,50.0
        ");
        let json: serde_json::Value = serde_json::from_str(&project.ok(&["status", "s", "--json"])).expect("JSON");
        let jobs = json["jobs"].as_array().expect("jobs");
        let job = |model: &str| jobs.iter().find(|job| job["model"] == model).expect("it is there");
        for field in ["data_wait_secs", "spikes", "rollbacks", "gpu_joules", "cpu_joules"] {
            assert!(job("m1")[field].is_null(), "{field}: {json}");
        }
        assert_eq!((&job("m2")["spikes"], &job("m2")["gpu_joules"]), (&2.into(), &100.0.into()));
        let words = project.output(&["status", "s"]);
        let words = String::from_utf8_lossy(&words.stderr).into_owned();
        assert_eq!(words.trim(), "loss spikes: 2 in 222222222222 (went back 2 times)");
    }

    #[tokio::test]
    async fn counts_of_a_launcher_are_used_while_they_are_fresh() {
        let project = Project::new();
        let store = project.store().await;
        script(&project, RUNS).await;
        let counted = project.ok(&["status", "--json"]);
        let sweep_id = store.sweep_list(Some("s")).await.expect("it is read")[0].sweep_id;
        let noted = StateCounts { pending: 7, done: 70_000, ..StateCounts::default() };
        let of_status = async || {
            let list = store.sweep_list(None).await.expect("it is read");
            (list[0].counts, list[0].counted_secs_ago > 0.0)
        };
        let exact = of_status().await.0;
        store.sweep_note_counts(sweep_id, Some(&noted)).await.expect("it is stored");
        assert_eq!(of_status().await, (noted, true));
        for shift in ["- interval '6 s'", "+ interval '1 h'"] {
            store.sweep_note_counts(sweep_id, Some(&noted)).await.expect("it is stored");
            script(&project, &format!("UPDATE sweep_totals SET counted_at = counted_at {shift}")).await;
            assert_eq!(of_status().await, (exact, false), "{shift}");
        }
        store.sweep_note_counts(sweep_id, Some(&noted)).await.expect("it is stored");
        assert_eq!(store.job_retry(&[], &["failed"]).await.expect("it is asked for"), 0);
        assert_eq!(of_status().await, (exact, false), "states were changed by hand");
        assert_eq!(project.ok(&["status", "--json"]), counted);
    }
}

#[test]
fn doctor_names_every_check() {
    let project = Project::new();
    let output = project.output(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    let level = |name: &str| {
        let check = checks.iter().find(|check| check["name"] == name).expect("the check is there");
        check["level"].as_str().expect("a level")
    };
    assert_eq!([level("project folder"), level("PostgreSQL"), level("database"), level("cores")], ["ok"; 4]);
    let failed = checks.iter().any(|check| check["level"] == "fail");
    assert_eq!(output.status.code(), Some(if failed { 3 } else { 0 }));
    for check in checks {
        assert!(check["level"] == "ok" || check["hint"].is_string(), "{check}");
    }
}
