#!/usr/bin/env bash
# Installs Debian's Slurm and MUNGE, for tests on a real cluster (scripts/slurm-cluster), slurmdbd and a MariaDB server with
# them, since limits on jobs in the queue take accounting, and Debian's PostgreSQL where there is none with TLS, for tests of a
# private database that listens. Starts no service. Run again, it checks and does nothing.
set -euo pipefail

cd "$(dirname "$0")/.."
programs() {
    for program in sbatch slurmctld slurmd munged slurmdbd mariadbd openssl; do
        command -v "$program" >/dev/null || return 1
    done
}
# The server that `sweep` would take. PyPI's has no TLS.
tls() {
    local folder
    folder=$(scripts/pg-bin.sh 2>/dev/null) || return
    [ -n "$("$folder/postgres" -C ssl_library -D / -c config_file=/dev/null 2>/dev/null)" ]
}
export PATH="$PATH:/usr/sbin:/sbin"
programs && tls && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "error: Slurm, or a PostgreSQL with TLS, is not installed, and only root can install it" >&2
    printf '\nhint: apt-get install slurm-wlm munge slurmdbd mariadb-server-core postgresql openssl (or your system'"'"'s packages of them)\n' >&2
    exit 3
fi
packages=(slurm-wlm munge slurmdbd mariadb-server-core openssl)
tls || packages+=(postgresql)
echo "setup-slurm: ${packages[*]} from Debian"
# Debian starts services as they are installed, unless this says no. What is there already comes back.
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
restore() {
    rm -f "$log" "$policy"
    [ ! -e "$policy.before-slurm" ] || mv "$policy.before-slurm" "$policy"
}
[ ! -e "$policy" ] || mv "$policy" "$policy.before-slurm"
trap restore EXIT
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod +x "$policy"
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 3
fi
programs
tls
