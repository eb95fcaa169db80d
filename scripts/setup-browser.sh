#!/usr/bin/env bash
# Installs Debian's Chromium, for tests of the report and of the live page in a real browser. Run again, it checks and does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
for program in chromium chromium-browser google-chrome; do
    if "$program" --version >/dev/null 2>&1; then exit 0; fi
done
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "error: there is no Chromium, and only root can install it" >&2
    printf '\nhint: apt-get install chromium (or your system'"'"'s package of it)\n' >&2
    exit 3
fi
echo "setup-browser: chromium from Debian"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 3
fi
chromium --version >/dev/null
