"""Clients of a server under test, on threads of the process that runs the cell."""

from __future__ import annotations

import http.client
import re
import threading
from collections import Counter

from matrix.serving import Server
from support import HANG, wait_for


class Clients:
    """Threads that ask for tagged pages, each on a connection that it keeps if the server does.

    A connection that breaks is no error: the server may be ending. Its tag is not in `answered`.
    """

    def __init__(
        self, server: Server, count: int, *, path: str = "/tag/", name: str = "c", keep_alive: bool = True
    ) -> None:
        self.server = server
        self._headers = {} if keep_alive else {"Connection": "close"}
        self.path = path
        #: Every tag asked for.
        self.asked: list[str] = []
        #: The tags that came back with status 200: their records have to be in the file.
        self.answered: list[str] = []
        #: Answers of another status, as ``TAG: STATUS``.
        self.refused: list[str] = []
        #: Tags whose connection broke or could not be made, with the reason.
        self.broken: list[str] = []
        #: Answers by process.
        self.by_pid: Counter[int] = Counter()
        self._errors: list[BaseException] = []
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(f"{name}{n}",), daemon=True) for n in range(count)]
        self._most = 0

    def ask(self, requests_each: int) -> None:
        """Every thread asks so many times, one request after the other; returns when all are done."""
        self._most = requests_each
        self.start()
        self._join()

    def start(self) -> None:
        """Begin to ask, until `stop`."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the end of what is under way; raises what went wrong in a thread."""
        self._enough.set()
        self._join()

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more have been answered."""
        goal = len(self.answered) + count
        wait_for(lambda: self._errors or len(self.answered) >= goal, HANG / 2, f"{count} more answers")

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(HANG / 2)
        assert not any(thread.is_alive() for thread in self._threads), "a request hangs"
        if self._errors:
            raise self._errors[0]

    def _run(self, client: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=HANG / 2)
        number = 0
        try:
            while not self._enough.is_set() and (number < self._most or not self._most):
                self._ask(connection, f"{client}-{number}")
                number += 1
        except BaseException as error:
            self._errors.append(error)
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, tag: str) -> None:
        self.asked.append(tag)
        try:
            connection.request("GET", f"{self.path}{tag}", headers=self._headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.broken.append(f"{tag}: {error!r}")
            self._enough.wait(0.01)  # nobody may be listening for a while
            return
        if response.status == 200:
            self.answered.append(tag)
            self.by_pid[int(re.sub(rb"\D", b"", body))] += 1
        else:
            self.refused.append(f"{tag}: {response.status}")
