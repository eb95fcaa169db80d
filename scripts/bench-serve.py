"""Times views of a `sweep serve` that runs, for scripts/bench-serve.sh: one table in Markdown.

    bench-serve.py ADDRESS_JSON SERVE_PID POSTMASTER_PID LONG_JOB RUNS

By the clock to the last byte, and in processor time: of `sweep serve`, and of PostgreSQL with all its processes.
"""

import http.client
import json
import os
import statistics
import sys
import time

address, serve, postmaster, long_job, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
port = int(json.load(open(address))["address"].rsplit(":", 1)[1])
TICKS = os.sysconf("SC_CLK_TCK")


def stat(pid):
    """Parent, and processor seconds of a process and of those of its children that have ended."""
    try:
        fields = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
    except OSError:
        return 0, 0.0
    return int(fields[1]), sum(map(int, fields[11:15])) / TICKS


def spent():
    """Processor seconds of the server, and of PostgreSQL."""
    backends = (stat(int(pid)) for pid in os.listdir("/proc") if pid.isdigit())
    return stat(serve)[1], stat(postmaster)[1] + sum(secs for parent, secs in backends if parent == postmaster)


def get(path):
    begun = time.perf_counter()
    connection = http.client.HTTPConnection("localhost", port)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - begun
    if answer.status != 200:
        sys.exit(f"{path}: {answer.status}\n{body.decode(errors='replace')[:2000]}")
    return took, len(body)


looks = iter(range(10**6))


def look(path):
    """Time to the end of the first look, which a stream begins with. A topic that is followed already answers from it, so each is
    a topic of its own."""
    path = f"{path}{next(looks)}"
    begun = time.perf_counter()
    connection = http.client.HTTPConnection("localhost", port)
    connection.request("GET", path, headers={"Accept": "text/event-stream"})
    answer, size = connection.getresponse(), 0
    while True:
        line = answer.readline()
        size += len(line)
        if line.startswith(b"event: seen"):
            connection.close()
            return time.perf_counter() - begun, size


metric = "metric=bench-a/acc1"
VIEWS = [
    ("all sweeps", get, "/"),
    ("one sweep, 10,000 squares", get, f"/sweep/big?{metric}"),
    ("the same, coloured by an aggregate", get, "/sweep/big?metric=bench-mean/acc1"),
    ("the same, no metric asked for", get, "/sweep/big"),
    ("its events, first look", look, "/sweep/big/live?metric=bench-a/acc"),
    ("job with a curve of 500,000 steps", get, f"/job/{long_job}"),
    ("results, one metric", get, f"/sweep/big/results?{metric}"),
    ("results by a condition", get, f"/sweep/big/results?{metric}&where=d+%3C+1e5+AND+seed+%3D+3&order=-value"),
    ("10,000 jobs compared with 5,000", get, f"/compare?sweep=big&against=half&{metric}"),
    ("the same by an aggregate", get, "/compare?sweep=big&against=half&metric=bench-mean/acc1"),
]
print("| view | by the clock, ms: median | least | processor, ms: database | page | kB |")
print("|---|---:|---:|---:|---:|---:|")
for name, way, path in VIEWS:
    way(path)
    before, times = spent(), []
    for _ in range(runs):
        took, size = way(path)
        times.append(1000 * took)
    page, database = (1000 * (now - then) / runs for now, then in zip(spent(), before))
    middle, least = statistics.median(times), min(times)
    print(f"| {name} | {middle:.0f} | {least:.0f} | {database:.0f} | {page:.0f} | {size / 1000:.0f} |", flush=True)
