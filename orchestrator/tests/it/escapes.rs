//! `sweep sql` and `--where` against people who want more than to read: each of these is tried against a real database.

use std::fs;

use crate::harness::{Project, transcript};

/// Queries that try to write, to read files, to run programs, to reach other sessions or to become somebody else.
const ESCAPES: &[&str] = &[
    "SELECT set_config('role', 'none', false), pg_read_file('/etc/passwd')",
    "SELECT set_config('session_authorization', 'sweep_admin', false)",
    "SELECT set_config('role', 'sweep', false)",
    "SELECT set_config('role', 'pg_execute_server_program', false)",
    "SELECT set_config('temp_file_limit', '-1', false)",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_read_binary_file('/etc/hostname')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_stat_file('/etc/passwd')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    "SELECT pg_cancel_backend(1)",
    "SELECT pg_reload_conf()",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock_shared(1)",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_creat(-1)",
    "SELECT pg_notify('sweep_attempt_ended', '')",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "SELECT * FROM pg_authid",
    "SELECT passwd FROM pg_shadow",
    "SELECT * FROM pg_file_settings",
    "SELECT nextval('job_job_id_seq')",
    "SELECT * FROM job FOR UPDATE",
    "WITH gone AS (DELETE FROM job RETURNING 1) SELECT * FROM gone",
    "WITH new AS (INSERT INTO sweep (name, spec) VALUES ('x', '') RETURNING 1) SELECT * FROM new",
    "SELECT 1; DROP TABLE job",
    "COMMIT",
    "SELECT 1 INTO TABLE marker",
    "SELECT query_to_xml('DELETE FROM metric_name', true, true, '')",
    "/* /* */ explain */ do $$ begin copy (select 1) to program 'touch MARKER'; end $$",
    "--\rdo $$ begin execute 'create table marker ()'; end $$;\nexplain",
    "/* nested /* comment */ */ COPY (SELECT 1) TO PROGRAM 'touch MARKER'",
    "DO $$ BEGIN PERFORM 1; END $$",
    "COPY job TO '/tmp/x'",
    "COPY (SELECT 1) TO PROGRAM 'touch MARKER'",
    "EXPLAIN ANALYZE DELETE FROM sweep",
    "EXPLAIN ANALYZE CREATE TABLE marker AS SELECT 1",
    "CREATE TEMPORARY TABLE marker ()",
    "CREATE FUNCTION marker() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER ROLE sweep_reader SUPERUSER",
    "SET ROLE sweep",
    "RESET ROLE",
    "LISTEN sweep_attempt_ended",
    "LOAD 'plpgsql'",
    "VACUUM",
    "CHECKPOINT",
    "PREPARE TRANSACTION 'x'",
];

#[tokio::test]
async fn no_query_does_more_than_read() {
    let project = Project::new();
    let store = project.store().await;
    let marker = project.path().join("marker");
    fs::set_permissions(project.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("it is ours");
    let state = "SELECT (SELECT count(*) FROM pg_class) + (SELECT count(*) FROM pg_proc) + (SELECT count(*) FROM sweep)
                        + (SELECT count(*) FROM pg_largeobject_metadata) AS objects,
                        (SELECT count(*) FROM pg_roles WHERE rolsuper) AS superusers,
                        (SELECT last_value FROM job_job_id_seq) AS drawn";
    let before = objects(&project, state).await;
    for escape in ESCAPES {
        let query = escape.replace("MARKER", &marker.display().to_string());
        let output = project.output(&["sql", &query]);
        assert!(output.status.code() == Some(2), "{escape}:\n{}", transcript(&output));
        assert!(!marker.exists(), "{escape}");
    }
    assert_eq!(objects(&project, state).await, before);
    // Who asks: an ordinary role that may read our tables.
    let who = "SELECT session_user = 'sweep_reader' AND NOT (SELECT bool_or(rolsuper) FROM pg_roles WHERE rolname = session_user)
               AND (SELECT NOT rolsuper FROM pg_roles WHERE rolname = 'sweep') AS ordinary, count(*) AS jobs FROM job";
    assert_eq!(project.ok(&["sql", "--format", "csv", who]), "ordinary,jobs\ntrue,0\n");
    for read in [
        "SHOW work_mem",
        "EXPLAIN SELECT 1",
        "/* a /* b */ c */ EXPLAIN ANALYZE SELECT count(*) FROM result",
        "TABLE sweep",
    ] {
        project.ok(&["sql", read]);
    }
    drop(store);
}

/// As the owner, who sees all.
async fn objects(project: &Project, query: &str) -> String {
    use sqlx::{Connection, Row};
    let access = sweep::store::private_postgres::running(&project.home()).expect("it is ours").expect("it is up");
    let mut connection = sqlx::PgConnection::connect_with(&access.options()).await.expect("it answers");
    let row = sqlx::query(sqlx::AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await.expect("it is right");
    (0..3).map(|column| row.get::<i64, _>(column).to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_time_limit_holds_against_a_query_that_lifts_it() {
    let project = Project::new();
    project.ok(&["db", "start"]);
    let query = "SELECT set_config('statement_timeout', '0', false), pg_sleep(3600)";
    let output = project.output(&["sql", "--timeout", "1", query]);
    let said = transcript(&output);
    assert!(output.status.code() == Some(2) && said.contains("longer than 1 s"), "{said}");
}

#[test]
fn a_named_superuser_runs_no_query() {
    let project = Project::new();
    project.ok(&["db", "start"]);
    let admin = fs::read_to_string(project.home().join("postgres/password.admin")).expect("it is there");
    let owner = project.ok(&["db", "url"]).trim().to_owned();
    let password = owner.split("password=").nth(1).expect("it holds one");
    let url = owner.replace(password, admin.trim()).replace("user=sweep&", "user=sweep_admin&");
    let ask = |variable: &str, url: &str, fallback: &str| {
        let mut command = project.sweep(&["sql", "--format", "csv", "SELECT session_user::text AS who"]);
        transcript(&command.env("DATABASE_URL", fallback).env(variable, url).output().expect("sweep runs"))
    };
    let refused = ask("DATABASE_URL", &url, "");
    assert!(refused.starts_with("exit: 3") && refused.contains("is a superuser"), "{refused}");
    assert!(refused.contains("SWEEP_READER_URL"), "{refused}");
    let reader = fs::read_to_string(project.home().join("postgres/password.reader")).expect("it is there");
    let reader = owner.replace(password, reader.trim()).replace("user=sweep&", "user=sweep_reader&");
    assert!(ask("SWEEP_READER_URL", &reader, &url).contains("who\nsweep_reader\n"));
    // A role that may only select can ask for the status too.
    let mut status = project.sweep(&["status"]);
    let status = transcript(&status.env("DATABASE_URL", &reader).output().expect("sweep runs"));
    assert!(status.starts_with("exit: 0"), "{status}");
}

#[tokio::test]
async fn readers_do_not_migrate_a_named_database() {
    let project = Project::new();
    project.store().await;
    let url = project.ok(&["db", "url"]).trim().to_owned();
    let access = sweep::store::private_postgres::running(&project.home()).expect("it is ours").expect("it is up");
    {
        use sqlx::Connection;
        let mut connection = sqlx::PgConnection::connect_with(&access.options()).await.expect("it answers");
        let older = "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)";
        sqlx::raw_sql(older).execute(&mut connection).await.expect("it is ours");
    }
    for args in [&["status"][..], &["sql", "SELECT 1"], &["export", "x", "--format", "csv", "-o", "y"]] {
        let output = project.sweep(args).env("DATABASE_URL", &url).output().expect("sweep runs");
        let said = transcript(&output);
        assert!(said.contains("this `sweep` needs version") && said.contains("sweep db migrate"), "{args:?}: {said}");
    }
}
