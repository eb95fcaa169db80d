#!/usr/bin/env bash
# Installs Debian's Slurm and MUNGE, for tests on a real cluster (scripts/slurm-cluster). Starts no service. Run again, it
# checks and does nothing. With them, slurmdbd and a MariaDB server: limits on jobs in the queue take accounting.
set -euo pipefail

programs() { for program in sbatch slurmctld slurmd munged slurmdbd mariadbd; do command -v "$program" >/dev/null || return 1; done; }
export PATH="$PATH:/usr/sbin:/sbin"
programs && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "error: Slurm is not installed, and only root can install it" >&2
    printf '\nhint: apt-get install slurm-wlm munge slurmdbd mariadb-server-core (or your system'"'"'s packages of them)\n' >&2
    exit 3
fi
echo "setup-slurm: slurm-wlm, slurmdbd, munge and MariaDB from Debian (12 MB)"
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
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge slurmdbd \
    mariadb-server-core; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 3
fi
programs
