"""gunicorn for examples/app.py: every log asynchronous and rotated; each worker ends with what became of its records.

Run in this directory: ``gunicorn app:app``. The file is found because of its name. Three files appear, each shared by
the master and all workers: app.log, access.log and error.log.
"""

from typing import Any

workers = 4
preload_app = True

# gunicorn's own logs: written by a thread of each process, never on the request's, and rotated by size.
# Their directory has to exist. "-" is a stream, as ever.
logger_class = "flask_asynclog.gunicorn.Logger"
accesslog = "access.log"
errorlog = "error.log"
access_log_format = "json"  # or a format of gunicorn's: '%(h)s "%(r)s" %(s)s %(M)sms'

# Options of access.log and error.log have the prefix ASYNCLOG_, those of the app FLASK_ASYNCLOG_. Values are JSON.
_quiet = '["/healthz", "/static/*"]'
raw_env = [
    "ASYNCLOG_MAX_BYTES=10000000",
    "ASYNCLOG_BACKUP_COUNT=5",
    f"ASYNCLOG_EXCLUDE_PATHS={_quiet}",
    f"FLASK_ASYNCLOG_EXCLUDE_PATHS={_quiet}",
]

# What a worker may take to end, in seconds: the requests under way, then ASYNCLOG_SHUTDOWN_TIMEOUT (5 s) to drain.
# The supervisor has to wait longer than that: systemd's TimeoutStopSec, Docker's --stop-timeout.
graceful_timeout = 30
# A worker that says nothing for so long is aborted; its queue then has about a second.
timeout = 30

# Signals to the master: TERM ends gracefully, HUP reloads, USR1 opens the files anew after somebody has moved them.


def worker_exit(server: Any, worker: Any) -> None:
    """Drain now and report, in error.log. Without this hook the drain comes a little later, at exit."""
    from app import asynclog

    asynclog.stop()
    server.log.info("worker %s: %s", worker.pid, asynclog.stats())
