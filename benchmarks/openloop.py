"""The client: requests at planned moments, whatever became of those before, each on a connection of its own.

Latency counts from the planned moment, not from when the request could be sent: what waits behind a pause of the
server, or of this client, has waited. One thread; loopback only.
"""

from __future__ import annotations

import random
import resource
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass
class Pending:
    """A request under way."""

    due: float
    sock: socket.socket
    path: str
    sent: bool = False
    head: bytes = b""


@dataclass
class Answers:
    """What came back."""

    #: Seconds from the planned moment to the end of the answer, in the order of their ends.
    latencies: list[float] = field(default_factory=list)
    #: The paths that were answered 200.
    paths: list[str] = field(default_factory=list)
    #: Requests without an answer of 200.
    failed: int = 0


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments of requests that know nothing of each other, in seconds from the start."""
    choose, moment, moments = random.Random(seed), 0.0, list[float]()
    while (moment := moment + choose.expovariate(rate)) < seconds:
        moments.append(moment)
    return moments


def even(rate: float, seconds: float) -> list[float]:
    """Moments at equal distances."""
    return [number / rate for number in range(int(rate * seconds))]


class Client:
    """Starts requests and collects answers. Not for several threads."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers = Answers()
        self.pending: dict[int, Pending] = {}
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < min(hard, 65_536):  # a pause of the server leaves many open
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
        self._epoll = select.epoll()

    def start(self, due: float, path: str) -> None:
        """Begin a request; ``due`` is its planned moment, of `time.perf_counter`."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.connect_ex(("127.0.0.1", self.port))
        self.pending[sock.fileno()] = Pending(due, sock, path)
        self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def step(self, timeout: float) -> None:
        """Wait for anything to happen, at most ``timeout`` seconds, and deal with it."""
        # epoll's own timeout is in milliseconds, rounded up; that of select, on the epoll, is exact.
        if timeout > 0 and not select.select([self._epoll], [], [], timeout)[0]:
            return
        for fd, _ in self._epoll.poll(0):
            self._go_on(self.pending[fd])

    def _go_on(self, request: Pending) -> None:
        try:
            if not request.sent:
                request.sock.send(f"GET {request.path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
                request.sent = True
                self._epoll.modify(request.sock.fileno(), select.EPOLLIN)
                return
            while data := request.sock.recv(65_536):
                request.head += data[: 16 - len(request.head)] if len(request.head) < 16 else b""
        except BlockingIOError:
            return
        except OSError:
            request.head = b""
        now = time.perf_counter()
        self._epoll.unregister(request.sock.fileno())
        del self.pending[request.sock.fileno()]
        request.sock.close()
        if request.head.startswith(b"HTTP/1.1 200"):
            self.answers.latencies.append(now - request.due)
            self.answers.paths.append(request.path)
        else:
            self.answers.failed += 1

    def close(self) -> None:
        """Give up what is under way."""
        self.answers.failed += len(self.pending)
        for request in self.pending.values():
            request.sock.close()
        self.pending.clear()
        self._epoll.close()


def open_loop(port: int, moments: Sequence[float], paths: Iterator[str], patience: float = 30.0) -> Answers:
    """A request at each of ``moments``; ends when all are answered, or ``patience`` seconds after the last."""
    client = Client(port)
    try:
        began = time.perf_counter() + 0.01
        for moment in moments:
            due = began + moment
            while (wait := due - time.perf_counter()) > 0:
                client.step(wait)
            client.start(due, next(paths))
            client.step(0)
        end = time.perf_counter() + patience
        while client.pending and (left := end - time.perf_counter()) > 0:
            client.step(left)
    finally:
        client.close()
    return client.answers


def closed_loop(port: int, seconds: float, paths: Iterator[str], at_once: int = 8) -> float:
    """Answers per second with ``at_once`` requests under way all the time: what the server can do at most."""
    client = Client(port)
    try:
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + seconds:
            while len(client.pending) < at_once:
                client.start(now, next(paths))
            client.step(began + seconds - now)
        return len(client.answers.latencies) / seconds
    finally:
        client.close()
