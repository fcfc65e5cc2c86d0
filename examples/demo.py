"""The main job, end to end: the example app under gunicorn, real requests, the lines they left, and a summary.

Ends by itself: exit status 0 if every request is in the log exactly once as request and as response.
"""

from __future__ import annotations

import collections
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

CLIENTS = 8
REQUESTS_EACH = 250
EXAMPLES = Path(__file__).resolve().parent


def main() -> int:
    """Serve, ask, stop, count."""
    with tempfile.TemporaryDirectory(prefix="flask-asynclog-demo-") as directory:
        log = Path(directory) / "app.log"
        print(f"{CLIENTS * REQUESTS_EACH} requests to 4 gunicorn workers (--preload), all logging to {log}")
        answered, status = serve_and_ask(log)
        lines, access, error = (read(log.with_name(name)) for name in ("app.log", "access.log", "error.log"))
    reports = [line for line in error if "Stats(" in line]
    if status or len(reports) != 4:
        print("\n".join(error), file=sys.stderr)

    print("The last lines:")
    print("\n".join(f"  {line}" for line in lines[-6:]))
    counts = collections.Counter[str]()
    for report in reports:
        counts.update(
            {name: int(value) for name, value in re.findall(r"(accepted|written|dropped|failed)=(\d+)", report)}
        )
    requests = collections.Counter(re.findall(r" - Request .* id=(\w+)$", "\n".join(lines), re.MULTILINE))
    responses = collections.Counter(re.findall(r" - Response .* id=(\w+)$", "\n".join(lines), re.MULTILINE))
    once = sum(requests[request_id] == responses[request_id] == 1 for request_id in answered)
    print(f"Workers: {len(reports)}, lines in the log: {len(lines)}")
    print(f"Summary: accepted {counts['accepted']}, written {counts['written']}, dropped {counts['dropped']}")
    print(f"Requests found exactly once as request and once as response: {once} of {len(answered)}")
    accessed = sum(json.loads(line)["http.response.status_code"] == 200 for line in access)
    print(f"Lines of gunicorn's access log, written in the same way: {accessed}")
    complete = once == accessed == len(answered) == CLIENTS * REQUESTS_EACH and counts["written"] == len(lines)
    return 0 if complete and status == 0 else 1


def read(log: Path) -> list[str]:
    """The lines of a log and of its rotated files."""
    return [line for file in sorted(log.parent.glob(f"{log.name}*")) for line in file.read_text().splitlines()]


def serve_and_ask(log: Path) -> tuple[list[str], int]:
    """Request ids of the answers, and gunicorn's exit status."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "--preload", "--workers", "4"]
        for name in ("access", "error"):
            command += [f"--{name}-logfile", str(log.with_name(f"{name}.log"))]
        server = subprocess.Popen(
            [*command, "--bind", f"fd://{listener.fileno()}", "app:app"],
            cwd=EXAMPLES,
            env={**os.environ, "FLASK_ASYNCLOG_FILENAME": str(log), "FLASK_ASYNCLOG_CONSOLE": "false"},
            pass_fds=[listener.fileno()],
        )
        try:
            answered: list[str] = []
            clients = [threading.Thread(target=ask, args=(port, n, answered)) for n in range(CLIENTS)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(60)
    return answered, status


def ask(port: int, client: int, answered: list[str]) -> None:
    """One client: requests one after the other, keeping the ids that the answers carry."""
    for number in range(REQUESTS_EACH):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", f"/hello/client-{client}-{number}")
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                answered.append(response.headers["X-Request-ID"])
        finally:
            connection.close()


if __name__ == "__main__":
    sys.exit(main())
