//! Roles of the private cluster. `sweep` owns the database and is no superuser; `sweep_reader` runs users' queries and
//! may read our tables and views alone. Both are made in single-user mode, while no server runs.

use std::fs::{self, File};

use super::access::{make_password, random_password, write_password};
use super::{NAME, PrivatePostgresError, Programs, READER, check, io_error};

/// Functions that everybody may call in a new cluster and a reader needs not: they lock out others, write (to the log
/// of changes, to large objects, to listeners) or reach other sessions.
const NOT_FOR_READERS: &str = "^(pg_advisory_|pg_try_advisory_|lo_|lowrite$|loread$|pg_notify$|pg_terminate_backend$|\
     pg_cancel_backend$|pg_logical_|pg_replication_|pg_export_snapshot$)";

/// Makes the owner and its database in a new cluster.
pub(super) fn add_owner(programs: &Programs<'_>, data: &str) -> Result<(), PrivatePostgresError> {
    let password = make_password(&programs.cluster.password_file())?;
    let script = [
        format!("CREATE ROLE {NAME} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{password}'"),
        format!("CREATE DATABASE {NAME} OWNER {NAME}"),
    ];
    single_user(programs, data, "postgres", &script)
}

/// Makes the reader, in a new cluster or in one of an older version. Its password is stored when all is done: a run
/// that was cut off is made up for by the next.
pub(super) fn add_reader(programs: &Programs<'_>, data: &str) -> Result<(), PrivatePostgresError> {
    let password = random_password()?;
    let mut script = vec![
        format!(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') THEN CREATE ROLE {READER}; END IF; END $$"
        ),
        format!(
            "ALTER ROLE {READER} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS \
             CONNECTION LIMIT 40 PASSWORD '{password}'"
        ),
    ];
    // The last one can be set by a superuser alone, and so not undone by the reader.
    for setting in [
        "default_transaction_read_only = on",
        "statement_timeout = '10min'",
        "idle_in_transaction_session_timeout = '10min'",
        "lock_timeout = '10s'",
        "search_path = public",
        "temp_file_limit = '2GB'",
    ] {
        script.push(format!("ALTER ROLE {READER} SET {setting}"));
    }
    script.extend([
        format!("REVOKE ALL ON DATABASE {NAME} FROM PUBLIC"),
        "REVOKE ALL ON DATABASE postgres FROM PUBLIC".to_owned(),
        "REVOKE ALL ON DATABASE template1 FROM PUBLIC".to_owned(),
        format!("GRANT CONNECT ON DATABASE {NAME} TO {READER}"),
        "REVOKE ALL ON SCHEMA public FROM PUBLIC".to_owned(),
        format!("GRANT ALL ON SCHEMA public TO {NAME}"),
        format!("GRANT USAGE ON SCHEMA public TO {READER}"),
        format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}"),
        format!("ALTER DEFAULT PRIVILEGES FOR ROLE {NAME} IN SCHEMA public GRANT SELECT ON TABLES TO {READER}"),
        format!(
            "DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc \
             WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '{NOT_FOR_READERS}' \
             AND has_function_privilege('{READER}', oid, 'EXECUTE') LOOP \
             EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f); \
             EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {NAME}', f); END LOOP; END $$"
        ),
    ]);
    single_user(programs, data, NAME, &script)?;
    write_password(&programs.cluster.reader_password_file(), &password)
}

/// Runs statements, each on a line of its own, as the superuser that the cluster was made with. No server runs
/// meanwhile.
fn single_user(
    programs: &Programs<'_>,
    data: &str,
    database: &str,
    statements: &[String],
) -> Result<(), PrivatePostgresError> {
    let mut command = programs.command("postgres");
    command.args([
        "--single",
        "-D",
        data,
        "-c",
        "log_checkpoints=off",
        "-c",
        "log_min_error_statement=panic",
        database,
    ]);
    // It holds passwords.
    let script = programs.cluster.lend_file("setup.sql", &(statements.join("\n") + "\n"))?;
    let stdin = File::open(&script).map_err(io_error("open", &script))?;
    let output = programs.output("postgres", command.stdin(stdin));
    fs::remove_file(&script).map_err(io_error("remove", &script))?;
    check("postgres --single", &output?)
}
