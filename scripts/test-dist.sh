#!/usr/bin/env bash
# Unpacks the archive of `make dist` into an empty folder and does with it what a user without Rust does: set up, plan, train, fit,
# report, with an environment of nothing but HOME, PATH and what pip is told here.
#   scripts/test-dist.sh ARCHIVE [ROOT]    ROOT: another system to do it in (root; debootstrap --include=python3,python3-pip bookworm ROOT)
set -euo pipefail
cd "$(dirname "$0")/.."
archive=$(realpath "$1") root=${2:-}
work=$(mktemp -d "$root/tmp/sweep-dist.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
tar -C "$work" --strip-components=1 -xzf "$archive"
mkdir "$work/study"
cp -r runners/pool/fixture "$work/study/pool"

cat >"$work/study/synthetic.yaml" <<'EOF'
name: synthetic
question: Does it run where nothing is compiled?
runner: synthetic
grid: {model: [cpu-w32-l2, cpu-w64-l3], samples_seen: [8k, 32k], data_size: [500, 1000]}
recipe: {global_batch: 128, lr: 1e-3}
EOF
cat >"$work/study/clip.yaml" <<'EOF'
name: clip
question: Does it train where nothing is compiled?
runner: clip
data: {pool: pool/train}
grid: {model: [cpu-w32-l2], samples_seen: [512], data_size: [200]}
recipe: {global_batch: 64, lr: 1e-3, context_length: 24}
evaluations: [{name: val, pool: pool/val, tasks: [zeroshot_retrieval]}]
EOF
cat >"$work/study/run.sh" <<'EOF'
set -eux
cd "$(dirname "$0")"
! command -v cargo
export PATH="$(dirname "$PWD")/bin:$PATH"
sweep setup
sweep setup
sweep doctor
for spec in synthetic clip; do
    sweep plan $spec.yaml
    sweep launch $spec.yaml
done
sweep report synthetic
test "$(sweep sql --format csv "SELECT count(*) FROM result WHERE state = 'done' AND train_loss IS NOT NULL" | tail -n 1)" = 9
sweep sql "SELECT sweep, model, samples_seen, train_loss, metrics FROM result" -o result.parquet
sweep db stop
EOF

inside=${work#"$root"}
environment=(HOME="$inside/study" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
for name in PIP_CERT PIP_INDEX_URL PIP_FIND_LINKS PIP_DEFAULT_TIMEOUT; do
    if [ -n "${!name:-}" ]; then environment+=("$name=${!name}"); fi
done
run=(env -i "${environment[@]}" bash "$inside/study/run.sh")
if [ -z "$root" ]; then
    "${run[@]}"
else
    # In a namespace of its own, which takes what is mounted with it.
    unshare --mount --pid --fork bash -c '
        root=$1
        shift
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        exec chroot "$root" "$@"' bash "$root" "${run[@]}"
fi
echo "test-dist: $(basename "$archive") plans, trains and reports ${root:+in $root}" >&2
