#!/bin/sh
# Renews `.sqlx/`, from which queries are checked against the schema where there is no database.
#   scripts/sqlx.sh           writes it
#   scripts/sqlx.sh --check   says what differs from what is there; exit code 1 if anything does
# Needs PostgreSQL server programs, found as `sweep` finds them (SWEEP_PG_BIN, PATH, pg_config, Debian's folders, `.venv`),
# and psql beside them or on PATH. A throwaway cluster is made for it; no other database is touched.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
mode=${1-write}
case $mode in
write | --check) ;;
*)
    echo "usage: scripts/sqlx.sh [--check]" >&2
    exit 2
    ;;
esac

fail() {
    echo "error: $1" >&2
    [ $# -lt 2 ] || printf '\nhint: %s\n' "$2" >&2
    exit 3
}

programs=$("$root/scripts/pg-bin.sh" 2>/dev/null || true)
[ -n "$programs" ] || fail "no PostgreSQL server programs found" \
    "install PostgreSQL, run \`make setup\`, or set SWEEP_PG_BIN to their folder"
psql=$programs/psql
[ -x "$psql" ] || psql=$(command -v psql) || fail "no psql beside the server programs or on PATH" "install postgresql-client"

work=$(mktemp -d /tmp/sweep-sqlx-XXXXXX)
chmod 755 "$work"
mkdir -m 700 "$work/cluster"

# PostgreSQL refuses to run as root, and there may be no sudo.
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    as_server() { setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups -- "$@"; }
    chown "$user" "$work/cluster"
    if ! as_server test -x "$programs/postgres"; then
        # The programs of a wheel in a private folder: they go with the folder of libraries beside them.
        package=$(dirname "$(dirname "$programs")")
        mkdir "$work/server"
        cp -RL "$package" "$work/server/"
        [ ! -d "$package.libs" ] || cp -RL "$package.libs" "$work/server/"
        chmod -R a+rX "$work/server"
        programs=$work/server/$(basename "$package")/$(basename "$(dirname "$programs")")/bin
    fi
else
    as_server() { "$@"; }
fi

cd "$work"
finish() {
    cd "$work"
    as_server "$programs/pg_ctl" stop --mode=immediate --pgdata="$work/cluster/data" >/dev/null 2>&1 || true
    cd /
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

as_server "$programs/initdb" --pgdata="$work/cluster/data" --username=sweep --auth=trust --encoding=UTF8 --locale=C \
    --no-sync >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "initdb failed"; }
as_server "$programs/pg_ctl" start --wait --pgdata="$work/cluster/data" --log="$work/cluster/log" \
    -o "-c listen_addresses= -c fsync=off -k $work/cluster" >/dev/null || { cat "$work/cluster/log" >&2; fail "PostgreSQL did not start"; }

for migration in "$root"/migrations/*.sql; do
    "$psql" --quiet --no-psqlrc --host="$work/cluster" --username=sweep --set=ON_ERROR_STOP=1 --file="$migration" postgres
done

# Every query is written as its macro is expanded, so the crate has to be compiled anew, tests included. The whole workspace,
# so that features are those of every other build and no dependency is compiled twice.
mkdir "$work/sqlx"
cd "$root"
touch orchestrator/src/lib.rs orchestrator/src/main.rs orchestrator/src/worker_main.rs orchestrator/tests/it/main.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$work/sqlx" DATABASE_URL="postgres:///postgres?host=$work/cluster&user=sweep" \
    cargo check --quiet --workspace --all-targets

count=$(find "$work/sqlx" -name 'query-*.json' | wc -l)
[ "$count" -gt 0 ] || fail "the build wrote no queries" "does \`.cargo/config.toml\` force SQLX_OFFLINE?"
if [ "$mode" = --check ]; then
    if ! diff -rq "$work/sqlx" "$root/.sqlx" >&2; then
        printf 'error: .sqlx/ is not what the queries and migrations give\n\nhint: run `make sqlx` and commit .sqlx/\n' >&2
        exit 1
    fi
    echo ".sqlx/ is current: $count queries" >&2
else
    mkdir -p "$root/.sqlx"
    rm -f "$root"/.sqlx/query-*.json
    cp "$work"/sqlx/query-*.json "$root/.sqlx/"
    echo "wrote $count queries to .sqlx/" >&2
fi
