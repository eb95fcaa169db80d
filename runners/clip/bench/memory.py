"""Peak memory of clip-runner beside what `sweep plan` says, on this CPU: one process a shape, one thread.

    scripts/bench-memory.sh      make bench-memory
"""

import json
import os
import subprocess
import sys
import tempfile

# Model, global batch, accum_freq, precision, grad_checkpointing where it is asked for.
SHAPES = [
    ("cpu-w32-l2", 128, 1, "fp32"),
    ("cpu-w64-l3", 256, 1, "fp32"),
    ("cpu-w64-l3", 1024, 1, "fp32"),
    ("cpu-w64-l3", 1024, 4, "fp32"),
    ("cpu-w96-l4", 512, 1, "fp32"),
    ("cpu-w128-l4", 512, 1, "fp32"),
    ("cpu-w128-l4", 512, 4, "fp32"),
    ("cpu-w128-l4", 512, 1, "amp_bf16"),
    ("cpu-w192-l6", 256, 1, "fp32"),
    ("w256-l4.json", 256, 1, "fp32"),
    ("w64-l4-64px.json", 256, 1, "fp32"),
    ("cpu-w64-l3", 1024, 1, "fp32", True),
    ("cpu-w128-l4", 512, 1, "fp32", True),
    ("cpu-w128-l4", 512, 1, "amp_bf16", True),
    ("cpu-w192-l6", 256, 1, "fp32", True),
]
# A wider one, and one of other image size and head width than the shipped.
FILES = {
    "w256-l4.json": {
        "embed_dim": 256,
        "vision_cfg": {"image_size": 32, "layers": 4, "width": 256, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 24, "vocab_size": 4096, "width": 256, "heads": 8, "layers": 4},
    },
    "w64-l4-64px.json": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 64, "layers": 4, "width": 64, "head_width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 24, "vocab_size": 4096, "width": 64, "heads": 1, "layers": 4},
    },
}
STEPS = 6


def sweep(program, folder, *words):
    said = subprocess.run([program, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if said.returncode != 0:
        sys.exit(f"sweep {' '.join(words)}: {said.stdout}{said.stderr}")
    return said.stdout


def measure(program, folder, pool, number, shape):
    """Bytes that the plan says, and bytes that the runner reports."""
    model, batch, parts, precision, *again = shape
    spec = f"""name: memory-{number}
runner: clip
data: {{pool: {pool}}}
grid: {{model: {model}, samples_seen: {STEPS * batch}, data_size: all, seed: {number}}}
recipe: {{global_batch: {batch}, accum_freq: {parts}, precision: {precision}, lr: 1e-3, augmentation: flip_shift,
  context_length: 24, grad_checkpointing: {str(bool(again)).lower()}}}
backend: {{local: {{slots: 1, threads_per_slot: 1, worker_time: 0s}}}}
"""
    with open(f"{folder}/memory.yaml", "w") as file:
        file.write(spec)
    job = json.loads(sweep(program, folder, "plan", "memory.yaml", "--json"))["jobs"][0]
    sweep(program, folder, "launch", "memory.yaml")
    query = f"SELECT max(peak_memory_bytes) FROM attempt JOIN job USING (job_id) WHERE job_key = '{job['job_key']}'"
    return job["memory_bytes"], int(sweep(program, folder, "sql", query, "--format", "csv").split()[-1])


def main(program, pool):
    settings = "model | global batch | accum_freq | precision | grad_checkpointing"
    print(f"| {settings} | estimate, MB | measured, MB | estimate / measured |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, model in FILES.items():
            with open(f"{folder}/{name}", "w") as file:
                json.dump(model, file)
        try:
            for number, shape in enumerate(SHAPES):
                said, measured = measure(program, folder, pool, number, shape)
                model, batch, parts, precision, *again = shape
                row = [model, f"{batch}", f"{parts}", precision, "yes" if again else ""]
                row += [f"{said / 1e6:.0f}", f"{measured / 1e6:.0f}"]
                print("| " + " | ".join(row) + f" | {said / measured:.3f} |", flush=True)
        finally:
            sweep(program, folder, "db", "stop")


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]))
