# `make help` lists the targets. Everything is set up inside the project; CARGO_TARGET_DIR and SWEEP_VENV are honoured.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := $(abspath $(or $(SWEEP_VENV),.venv))
SWEEP := $(TARGET)/debug/sweep
export LIBTORCH ?= $(VENV)/libtorch
# Everything in one call, so that features and profiles agree and nothing is built twice.
ALL := --workspace

.PHONY: help
help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Fetch libtorch and, where the system has none, PostgreSQL (into .venv)
	@scripts/setup.sh

.PHONY: setup-cuda
setup-cuda: ## Fetch the CUDA compiler and CUTLASS (110 MB, into .venv): only for the kernels, no GPU needed
	@scripts/setup-cuda.sh

.PHONY: setup-slurm
setup-slurm: ## Install Debian's Slurm, MUNGE and PostgreSQL (root), for the tests on a real cluster
	@scripts/setup-slurm.sh

.PHONY: setup-browser
setup-browser: ## Install Debian's Chromium (root), for the tests of pages
	@scripts/setup-browser.sh

.PHONY: build
build: setup ## Build sweep, its worker and the runners
	@cargo build $(ALL)

.PHONY: data
data: ## Fetch and pack the emoji pairs into data/emoji (needs no libtorch)
	@cargo build $(ALL) --bin sweep-pool
	@SWEEP_POOL="$(TARGET)/debug/sweep-pool" scripts/data.sh emoji

.PHONY: demo
demo: ## A real scaling-law study of CLIP on emoji, from nothing: sets up, builds, trains, fits, reports
	@scripts/demo.sh "$(TARGET)/debug"

.PHONY: dist
dist: build ## Pack programs for machines without Rust: dist/sweep-VERSION-linux-x86_64.tar.gz
	@scripts/dist.sh "$(TARGET)/debug"

.PHONY: test-dist
test-dist: dist ## Unpack that into an empty folder, and set up, train and report there with an empty environment (550 MB from PyPI)
	@scripts/test-dist.sh dist/sweep-*-linux-x86_64.tar.gz

.PHONY: wheel
wheel: build ## Pack the losses for Python: dist/sweep_kernels-VERSION-py3-none-*.whl
	@scripts/wheel.sh "$(TARGET)/debug"

.PHONY: test-wheel
test-wheel: wheel ## Install the wheel into a new environment and run the losses' tests there (needs 2.5 GB of PyTorch, once)
	@scripts/test-wheel.sh dist/sweep_kernels-*.whl

.PHONY: study
study: build ## The larger study on 142,749 icons: about a quarter of an hour on two cores
	@SWEEP_POOL="$(TARGET)/debug/sweep-pool" scripts/data.sh icons
	@"$(SWEEP)" launch experiments/icons.yaml
	@"$(SWEEP)" report icons

.PHONY: paper
paper: build ## The 2022 study's figures and tables from its data (PAPER_DATA), into reports/openclip-2022
	@scripts/paper.sh "$(SWEEP)" "$${PAPER_DATA:-../shared/data/scaling-laws-openclip}" reports/openclip-2022

.PHONY: test
test: build ## The tests, on a real PostgreSQL and a real libtorch; Slurm's and the browser's where setup-slurm, setup-browser ran
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run $(ALL); else cargo test $(ALL) --all-targets; fi
	@cargo test $(ALL) --doc

.PHONY: torture
torture: build ## Faults at random while a sweep runs, here and on Slurm (FAULTS=100, SEED=...); a short form is among the tests
	@SWEEP_TORTURE_FAULTS="$${FAULTS:-100}" SWEEP_TORTURE_SLURM_FAULTS="$$(($${FAULTS:-100} / 3))" \
		SWEEP_TORTURE_SEED="$${SEED:-$$RANDOM}" cargo test $(ALL) --test it torture -- --nocapture

.PHONY: torture-scale
torture-scale: build ## 100,000 jobs on a simulated backend that errs (JOBS=..., SEED=...): seven minutes
	@SWEEP_SCALE_JOBS="$${JOBS:-100000}" SWEEP_SCALE_SEED="$${SEED:-$$RANDOM}" \
		cargo test $(ALL) --test it many_jobs -- --nocapture

.PHONY: lint
lint: setup ## Formatting, clippy and shell syntax, warnings as errors
	@cargo fmt --all --check
	@cargo clippy $(ALL) --all-targets -- -D warnings
	@for script in scripts/*.sh scripts/slurm-cluster scripts/gpu/*.sh kernels/csrc/cached.sh kernels/csrc/cuda/emulate/run.sh .ci/run; do bash -n $$script; done

.PHONY: cuda-emulate
cuda-emulate: ## CUDA kernels on the CPU: no GPU, and no CUDA (but for Hopper's epilogues: make setup-cuda)
	@kernels/csrc/cuda/emulate/run.sh "$(TARGET)/kernels-emulate" $(wildcard $(VENV)/cutlass $(VENV)/cuda)

.PHONY: cuda-compile
cuda-compile: setup-cuda ## Compile the CUDA kernels: nothing of it runs (SWEEP_CUDA_HOPPER=0 leaves CUTLASS out)
	@scripts/cuda-compile.sh

.PHONY: sqlx
sqlx: setup ## Renew .sqlx/ after changing a query or a migration
	@scripts/sqlx.sh

.PHONY: sqlx-check
sqlx-check: setup ## Fail if .sqlx/ is not what the queries need
	@scripts/sqlx.sh --check

.PHONY: bench-step
bench-step: build ## A training step beside open_clip's on three small models, 15 minutes (needs 2.5 GB of PyTorch, once)
	@CLIP_RUNNER="$(TARGET)/debug/clip-runner" scripts/kernels-python.sh runners/clip/bench/step.py

.PHONY: bench-data
bench-data: build ## The loader beside webdataset, Pillow and torchvision, one core each (fetches 173 MB; 2.5 GB of PyTorch, once)
	@CLIP_RUNNER="$(TARGET)/debug/clip-runner" SWEEP_POOL="$(TARGET)/debug/sweep-pool" scripts/bench-data.sh

.PHONY: bench-memory
bench-memory: build ## Peak memory of trainings on this CPU beside what `sweep plan` says of them: one table
	@SWEEP="$(SWEEP)" SWEEP_POOL="$(TARGET)/debug/sweep-pool" scripts/bench-memory.sh

.PHONY: bench-orchestrator
bench-orchestrator: build ## Planning, starting, storing at 100,000 jobs, beside HyperQueue: one table, 3 minutes
	@scripts/bench-orchestrator.sh "$(SWEEP)"

.PHONY: bench-serve
bench-serve: build ## Each view of the live page over 10,000 jobs and 11 million rows of curves: one table, some minutes, 3 GB
	@scripts/bench-serve.sh "$(SWEEP)"

.PHONY: bench-kernels
bench-kernels: ## The contrastive losses against open_clip on this CPU, one table (needs 2.5 GB of PyTorch, once)
	@scripts/kernels-python.sh kernels/python/bench.py

.PHONY: test-python
test-python: ## The Python face of the kernels, against open_clip (needs 2.5 GB of PyTorch, once)
	@scripts/kernels-python.sh -m pytest -q -p no:cacheprovider kernels/python

.PHONY: test-openclip
test-openclip: build ## Checkpoints, configurations and open_clip as a runner (needs 2.5 GB of PyTorch, once)
	@SWEEP="$(SWEEP)" CLIP_RUNNER="$(TARGET)/debug/clip-runner" SWEEP_POOL="$(TARGET)/debug/sweep-pool" \
		scripts/kernels-python.sh -m pytest -q -p no:cacheprovider runners/clip/tests/python runners/openclip/tests

.PHONY: test-clip-benchmark
test-clip-benchmark: build ## CLIP_benchmark's own command line on our pools, checkpoints and files (70 MB beside test-openclip's)
	@SWEEP="$(SWEEP)" CLIP_RUNNER="$(TARGET)/debug/clip-runner" SWEEP_POOL="$(TARGET)/debug/sweep-pool" \
		scripts/clip-benchmark.sh -m pytest -q -p no:cacheprovider runners/clip/tests/clip_benchmark

.PHONY: bench-fit
bench-fit: ## Fits and bootstrap refits against SciPy, one thread, one table
	@scripts/bench-fit.sh

.PHONY: fuzz
fuzz: ## Fuzz each reader for FUZZ_SECS seconds (60); needs a nightly compiler and cargo-fuzz
	@scripts/fuzz.sh

.PHONY: clean
clean: ## Remove build output; data, results and .venv stay
	@cargo clean
