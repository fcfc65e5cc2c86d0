"""The app that the servers of the matrix serve: `serving.put_app` copies this file into a cell's directory.

``GET /tag/TAG`` leaves three records: the request, ``tag TAG`` in the view, the response; it answers the process id.
All of `AsyncLog` is configured by ``FLASK_ASYNCLOG_…`` environment variables.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from flask import Flask

from flask_asynclog import AsyncLog

app = Flask("served")
app.config.from_prefixed_env()
asynclog = AsyncLog(app)

#: A file ``imported-PID`` for each process that has imported this module, with the number of records logged meanwhile.
records_at_import = int(os.environ.get("MATRIX_RECORDS_AT_IMPORT", "0"))
for number in range(records_at_import):
    app.logger.info("tag import-%d-%d", os.getpid(), number)
with open(f"imported-{os.getpid()}", "w") as _file:
    _file.write(str(records_at_import))


@app.get("/ready")
def ready() -> dict[str, int]:
    """An answer, to know that the server is up."""
    return {"pid": os.getpid()}


@app.get("/tag/<tag>")
def tag(tag: str) -> dict[str, int]:
    """One tagged request."""
    app.logger.info("tag %s", tag)
    return {"pid": os.getpid()}


@app.get("/hang/<tag>")
def hang(tag: str) -> dict[str, int]:
    """One tagged request that is never answered. The file ``hanging`` appears when it hangs."""
    app.logger.info("tag %s", tag)
    open("hanging", "w").close()
    _blocking_sleep(600)
    return {"pid": os.getpid()}


def _blocking_sleep(seconds: float) -> None:
    # Under gevent the whole worker has to hang, as it does in a call to C, not just a greenlet.
    monkey = sys.modules.get("gevent.monkey")
    sleep = monkey.get_original("time", "sleep") if monkey else time.sleep
    sleep(seconds)


@app.get("/threads")
def threads() -> dict[str, object]:
    """The threads that this process knows of."""
    return {"pid": os.getpid(), "threads": [thread.name for thread in threading.enumerate()]}
