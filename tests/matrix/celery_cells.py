"""Celery's prefork workers, whose processes end without Python's exit hooks and whose root logger Celery takes."""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from matrix.cells import Cell, Result
from matrix.programs import lines_of, tags_of
from matrix.serving import environment, start

TASKS = 100

#: The broker is a directory. Each record is noted in the ledger once it is logged, see tagging.py.
FRAME = """
import os
from celery import Celery, signals
from celery.utils.log import get_task_logger
from flask import Flask
from flask_asynclog import AsyncLog
from flask_asynclog.handlers import AsyncRotatingFileHandler
from tagging import note

folders = {{f"data_folder_{{way}}": os.path.abspath("broker") for way in ("in", "out")}}
folders["control_folder"] = os.path.abspath("control")
for folder in folders.values():
    os.makedirs(folder, exist_ok=True)
celery = Celery("tasks", broker="filesystem://")
celery.conf.update(
    broker_transport_options=folders, worker_prefetch_multiplier=1, task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)
OPTIONS = dict(filename="tagged.log", flush_interval=60, max_bytes=5000, backup_count=1000)
logger = get_task_logger(__name__)
{}

@celery.task
def work(tag):
    logger.info("tag=%s", tag)
    note(tag, "ledger")
"""

#: How a user has the records of Celery and the tasks go to our file.
WAYS = {
    "AsyncRotatingFileHandler, after_setup_logger": """
@signals.after_setup_logger.connect
@signals.after_setup_task_logger.connect
def add_handler(logger, **others):
    if "handler" not in globals():
        globals()["handler"] = AsyncRotatingFileHandler(**OPTIONS)
    logger.addHandler(handler)  # root and Celery's task logger, which does not propagate
""",
    "AsyncRotatingFileHandler, setup_logging": """
@signals.setup_logging.connect
def configure(**others):
    import logging.config
    handler = {"class": "flask_asynclog.handlers.AsyncRotatingFileHandler", **OPTIONS}
    logging.config.dictConfig(
        {"version": 1, "disable_existing_loggers": False, "handlers": {"file": handler},
         "root": {"level": "INFO", "handlers": ["file"]}}
    )
""",
    "AsyncLog, setup_logging": """
@signals.setup_logging.connect
def configure(**others):
    AsyncLog(Flask("tasks"), **OPTIONS)
""",
    "AsyncLog, after_setup_task_logger": """
@signals.after_setup_task_logger.connect
def add_handler(**others):
    AsyncLog(Flask("tasks"), loggers=["", "celery.task"], **OPTIONS)
""",
}

CELERY = (sys.executable, "-m", "celery", "--app", "tasks")
WORKER = (
    *CELERY, "worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "INFO",
    "--without-gossip", "--without-mingle", "--without-heartbeat",
)  # fmt: skip
SEND = f"import tasks; [tasks.work.delay(str(number)) for number in range({TASKS})]"


def work(way: str, number: signal.Signals, directory: Path, *, options: tuple[str, ...] = ()) -> Result:
    """All tasks are done, then the worker gets the signal."""
    shutil.copy(Path(__file__).with_name("tagging.py"), directory)
    (directory / "tasks.py").write_text(FRAME.format(WAYS[way]))
    subprocess.run([sys.executable, "-c", SEND], cwd=directory, env=environment({}), check=True, timeout=60)
    ledger = directory / "ledger"
    with start(directory, [*WORKER, *options]) as worker:
        worker.wait_while_running(lambda: len(lines_of(ledger)) >= TASKS, "the end of all tasks")
        seconds = worker.end(number)
    expected = lines_of(ledger)
    problems = [line for line in worker.output().splitlines() if "flask_asynclog[" in line or "Traceback" in line]
    if worker.process.returncode != 0:
        problems.append(f"exit status {worker.process.returncode}; output: {worker.output()[-1000:]}")
    return Result(expected, tags_of(directory / "tagged.log"), seconds, problems=problems)


CELLS = [
    Cell(
        f"Celery prefork, {way}",
        event,
        functools.partial(work, way, number, options=options),
        needs=("celery",),
    )
    for way in WAYS
    for event, number, options in [
        ("SIGTERM", signal.SIGTERM, ()),
        ("max-tasks-per-child, SIGTERM", signal.SIGTERM, ("--max-tasks-per-child", "10")),
    ]
]
