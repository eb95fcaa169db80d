"""`openclip-runner describe` and `openclip-runner run --job job.json`."""

import argparse
import importlib.util
import json
import pathlib
import re
import signal
import sys

from openclip_runner import NAME, REVISION, events
from openclip_runner.errors import BadInput, Diverged, Stopped
from openclip_runner.job import ACCEPTS

# What `open_clip_train` imports; open_clip_torch does not ask for the last three.
NEEDED = ["torch", "open_clip", "open_clip_train", "webdataset", "pandas", "braceexpand"]
FINISHED, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 75


def version():
    """Of this runner and of the open_clip that would train: a job's result depends on both."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"openclip-runner: {sys.executable} lacks {', '.join(missing)}; set OPENCLIP_PYTHON to a Python that has "
            "open_clip_torch, webdataset, pandas and braceexpand"
        )
    found = importlib.util.find_spec("open_clip")
    text = pathlib.Path(found.origin).with_name("version.py").read_text()
    return f"{REVISION}+open_clip-{re.search(r'__version__ = .(.+).$', text, re.M)[1]}"


def describe():
    described = version()
    import torch

    devices = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return {
        "name": NAME, "version": described, "protocol": 1, "reads_data": True, "devices": devices, "ranks": True,
        "init": True, "accepts": ACCEPTS,
    }


def run(path):
    """The exit code. Every end but a stop is told as an event."""
    from openclip_runner import training

    try:
        training.run(path, version())
    except Stopped:
        return STOPPED
    except BadInput as error:
        kind, reason, code = "bad_input", str(error), BAD_INPUT
    except Diverged as error:
        kind, reason, code = "diverged", str(error), FAILED
    except Exception as error:  # libtorch's errors (out of memory) and the disk's arrive here.
        import traceback

        traceback.print_exc()
        kind, reason, code = "crash", f"{type(error).__name__}: {error}", FAILED
    else:
        return FINISHED
    events.say(reason)
    events.emit("failed", reason=reason[:2000], kind=kind)
    return code


def main():
    parser = argparse.ArgumentParser(prog="openclip-runner", description="Trains CLIP by open_clip_train for sweep.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("describe", help="print what this runner is, as JSON")
    commands.add_parser("run", help="train a job; events go to standard output").add_argument("--job", required=True)
    arguments = parser.parse_args()
    if arguments.command == "describe":
        print(json.dumps(describe()))
        return 0
    events.take_standard_output()
    code = run(arguments.job)
    # As it leaves, Python puts the default actions back in place of handlers: a second stop would kill it, and 75 be lost.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(main())
