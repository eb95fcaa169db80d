#!/usr/bin/env bash
# Fits and bootstrap refits of `fit` beside the published way in SciPy: same 240 points, one thread, one table.
#   SWEEP_BENCH_SCIPY  the SciPy benchmark (../shared/bench/bench_fit_scipy.py)
#   SWEEP_BENCH_DATA   its points (../shared/data/epoch_chinchilla_svg_extracted.csv)
#   SWEEP_BENCH_FULL=1 all 4,500 starts and 4,000 resamples in SciPy, three minutes; otherwise a tenth, scaled up
set -euo pipefail
cd "$(dirname "$0")/.."

target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
scipy="${SWEEP_BENCH_SCIPY:-../shared/bench/bench_fit_scipy.py}"
data="${SWEEP_BENCH_DATA:-../shared/data/epoch_chinchilla_svg_extracted.csv}"
for file in "$scipy" "$data"; do
  if [ ! -f "$file" ]; then
    echo "bench-fit: $file is not there: set SWEEP_BENCH_SCIPY and SWEEP_BENCH_DATA" >&2
    exit 1
  fi
done

venv="$target/bench-venv"
if ! cmp -s scripts/requirements-bench.txt "$venv/requirements-bench.txt"; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r scripts/requirements-bench.txt
  cp scripts/requirements-bench.txt "$venv/"
fi

FIT_BENCH_DATA="$(realpath "$data")" RAYON_NUM_THREADS=1 CARGO_TARGET_DIR="$target/bench" \
  cargo bench --quiet --manifest-path orchestrator/fit/bench/Cargo.toml --bench fit -- --warm-up-time 1 --measurement-time 5 >&2

if [ "${SWEEP_BENCH_FULL:-0}" = 1 ]; then size=(--grid-stride 1 --n-boot 4000); else size=(--grid-stride 9 --n-boot 400); fi
OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 "$venv/bin/python" "$scipy" --data "$data" \
  --modes grid-fd,grid-an,boot-fd,boot-an,boot-warm "${size[@]}" --json "$target/bench-fit-scipy.json" >/dev/null

"$venv/bin/python" - "$target" <<'PYTHON'
import glob, json, os, sys

target = sys.argv[1]
scipy = json.load(open(f"{target}/bench-fit-scipy.json"))
ours = {}
for path in glob.glob(f"{target}/bench/criterion/fit/*/new/estimates.json"):
    name = json.load(open(path.replace("estimates", "benchmark")))["function_id"]
    ours[name] = json.load(open(path))["median"]["point_estimate"] / 1e9
fit = next(seconds for name, seconds in ours.items() if name.startswith("optimum"))
refits = {int(name.split()[2]): seconds for name, seconds in ours.items() if "refits" in name}
rows = [("best optimum, fit: 32 starts", fit, fit)]
for mode, what in (("grid-an", "exact gradient"), ("grid-fd", "differences, as published")):
    run = scipy[mode]
    scaled = ", scaled up" if run["scaled"] else ""
    rows.append((f"best optimum, SciPy: 4,500 starts, {what}{scaled}", run["seconds_scaled_to_4500"], fit))
rows.append(("4,000 refits, fit", refits[1], refits[1]))
for mode, what in (("boot-warm", "warm"), ("boot-an", "exact gradient"), ("boot-fd", "differences")):
    run = scipy[mode]
    scaled = ", scaled up" if run["scaled"] else ""
    rows.append((f"4,000 refits, SciPy: {what}{scaled}", run["seconds_scaled_to_4000"], refits[1]))
for threads in sorted(refits)[1:]:
    rows.append((f"4,000 refits, fit: {threads} threads", refits[threads], refits[1]))
print(f"{'240 points, 5 parameters, Huber 1e-3; one thread unless said':64} {'seconds':>10} {'of ours':>9}")
for what, seconds, unit in rows:
    print(f"{what:64} {seconds:10.4f} {seconds / unit:9.2f}")
PYTHON
