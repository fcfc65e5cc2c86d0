"""gunicorn for examples/app.py: four workers, one rotating file; each worker ends with what became of its records.

Run in this directory: ``gunicorn app:app``. The file is found because of its name.
"""

from typing import Any

workers = 4
preload_app = True


def worker_exit(server: Any, worker: Any) -> None:
    """Drain now, while stderr still is gunicorn's, and report. Without this hook the drain comes at exit."""
    from app import asynclog

    asynclog.stop()
    server.log.info("worker %s: %s", worker.pid, asynclog.stats())
