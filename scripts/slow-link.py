#!/usr/bin/env python3
"""A slow link on one machine: a proxy that lets through so many bytes a second each way.

    scripts/slow-link.py PORT TO_PORT MB_PER_SECOND [MILLISECONDS]

Listens at 127.0.0.1:PORT and joins each connection with 127.0.0.1:TO_PORT. For two ranks: rank 1 is given PORT as MASTER_PORT and rank 0
TO_PORT, since with two the only connection is the one that rank 1 opens. Bytes leave no sooner than a link of that rate would
have carried them, and MILLISECONDS later.
"""
import socket
import sys
import threading
import time
from queue import Queue

PIECE = 16 << 10


def carry(source: socket.socket, sink: socket.socket, rate: float, delay: float) -> None:
    pieces: Queue = Queue(maxsize=64)

    def send() -> None:
        while piece := pieces.get():
            due, data = piece
            time.sleep(max(0.0, due - time.monotonic()))
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    free = time.monotonic()  # When the link has carried all so far.
    while data := source.recv(PIECE):
        free = max(free, time.monotonic()) + len(data) / rate
        pieces.put((free + delay, data))
    pieces.put(None)


def main() -> None:
    port, to, rate = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) * 1e6
    delay = float(sys.argv[4]) / 1e3 if len(sys.argv) > 4 else 0.0
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", to))
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for ends in ((near, far), (far, near)):
            threading.Thread(target=carry, args=(*ends, rate, delay), daemon=True).start()


if __name__ == "__main__":
    main()
