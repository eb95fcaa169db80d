"""Events go to the standard output that the process began with; what else writes there is sent to standard error."""

import json
import os
import sys

_out = None


def take_standard_output():
    """Keeps standard output for events: open_clip and what it calls may print."""
    global _out
    sys.stdout.flush()
    _out = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)


def emit(event, **fields):
    _out.write(json.dumps({"event": event, **fields}) + "\n")
    _out.flush()


def say(words):
    print(words, file=sys.stderr, flush=True)
