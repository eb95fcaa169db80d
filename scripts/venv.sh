# Sourced by setup.sh and setup-cuda.sh, in the project's folder: the virtual environment $venv and what goes into it.
say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n\nhint: %s\n' "$1" "$2" >&2
    exit 3
}

need() { # program, what for, Debian package
    command -v "$1" >/dev/null 2>&1 || die "\`$1\` was not found; it is needed $2" "on Debian: apt-get install $3"
}

# Sets `venv` and `packages`. `--without-pip` needs no ensurepip, which Debian splits off; the outer pip installs into
# the environment.
make_venv() {
    need python3 "to fetch $1" "python3 python3-pip"
    python3 -m pip --version >/dev/null 2>&1 || die "Python has no pip" "on Debian: apt-get install python3-pip"
    venv=${SWEEP_VENV:-.venv}
    [ -x "$venv/bin/python" ] || {
        say "virtual environment in $venv"
        python3 -m venv --without-pip "$venv"
    }
    venv=$(cd "$venv" && pwd)
    packages=$(echo "$venv"/lib/python3*/site-packages)
}

installed() { [ -f "$venv/.$(basename "$1").sha256" ]; } # in some version

install() { # requirements file, and the make target to run again
    local mark want
    mark="$venv/.$(basename "$1").sha256"
    want=$(sha256sum <"$1")
    [ "$(cat "$mark" 2>/dev/null || true)" = "$want" ] && return
    python3 -m pip --disable-pip-version-check --python "$venv/bin/python" install \
        --quiet --no-deps --require-hashes --no-warn-script-location -r "$1" ||
        die "pip could not install $1" "check the network and the free disk (2 GB), then run make $2 again"
    printf '%s\n' "$want" >"$mark"
}

link() { [ "$(readlink "$2" || true)" = "$1" ] || ln -sfn "$1" "$2"; }
