"""One process and its ends: scripts, ``flask`` commands, the shell; signals, finalizers, threads that go on."""

from __future__ import annotations

import signal

from matrix.programs import FREE_THREADED_313, TRACEBACK, Program

FLASK = ("-m", "flask", "--app", "program")
WORK = (*FLASK, "work")
STDIN = "import program\nprogram.log(200)\n"

FAIL = "raise LookupError('on purpose')"
FAILURE = TRACEBACK.format("LookupError: on purpose")

#: A command of the app; how it ends is put in.
COMMAND = """
import click

@app.cli.command("work")
@click.pass_context
def work(context):
    log(200)
    {}
"""

THREAD = """
def work():
    log(200)
    sys.exit(3)

thread = threading.Thread(target=work)
thread.start()
thread.join()
log(100)
"""

LATE_THREAD = """
def work():
    threading.main_thread().join()
    log(200, "late")

threading.Thread(target=work).start()
log(100)
"""

#: Goes on while the interpreter ends, until that stops it.
DAEMON_THREAD = """
def work():
    while True:
        log(1, "daemon")
        time.sleep(0.0005)

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
log(200)
"""

#: Callbacks run in reverse order: this one after the extension's.
ATEXIT_FIRST = """
atexit.register(lambda: log(50, "early"))
"""

ATEXIT = """
atexit.register(lambda: log(50, "late"))
log(200)
"""

#: Called after all of ``atexit``, when the modules go.
FINALIZER = """
class Last:
    def __del__(self, log=log):
        log(50, "finalizer")

last = Last()
last.itself = last
another = Last()
log(200)
"""

BUSY = """
log(200)
ready()
while True:
    log(5, "busy")
    time.sleep(0.001)
"""

WAITS = """
log(200)
ready()
while True:
    WAIT
"""

WAYS_TO_WAIT = {
    "time.sleep()": "time.sleep(600)",
    "signal.pause()": "signal.pause()",
    "a system call": "os.read(os.pipe()[0], 1)",
    "Event.wait()": "threading.Event().wait()",
    "Thread.join()": "thread = threading.Thread(target=time.sleep, args=[600], daemon=True)\n"
    "    thread.start()\n"
    "    thread.join()",
    "a computation": "sum(range(1_000_000))",
}

IN_A_THREAD = """
def make_app(make=make_app):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return pool.submit(make).result()
"""

#: As when a whole group gets the signal, and its first process passes it on.
TWICE = """
def kill():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGTERM)

log(5000)
threading.Thread(target=kill).start()
time.sleep(600)
"""

HANDLER = """
def terminate(number, frame):
    log(20, "handler")
    sys.exit(5)

signal.signal(signal.SIGTERM, terminate)
"""

IGNORED = """
log(100)
os.kill(os.getpid(), signal.SIGTERM)
log(100)
"""

#: 40,000 records, fewer than would be dropped were none of them written meanwhile.
ALARMS = """
fired = 0

def on_alarm(number, frame):
    global fired
    fired += 1
    log(1, "alarm")

signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for _ in range(2000):
    log(20)
    time.sleep(0.001)
signal.setitimer(signal.ITIMER_REAL, 0)
assert 1000 < fired < 10_000, fired
"""

#: The garbage is collected wherever something is allocated: in the caller's code and in the listener's thread.
GARBAGE = """
class Cycle:
    def __init__(self):
        self.itself = self

    def __del__(self):
        log(1, "collected")

gc.set_threshold(1)
for _ in range(3000):
    Cycle()
    log(2)
    if _ % 100 == 0:
        time.sleep(0.005)  # the listener's turn
"""

PROGRAMS = [
    Program("script", "end of main", "log(200)", 200),
    Program("script", "sys.exit(3)", "log(200)\nsys.exit(3)", 200, status=3),
    Program("script", "unhandled exception", f"log(200)\n{FAIL}", 200, status=1, output=FAILURE),
    Program("script", "flush, then os._exit(4)", "log(200)\nasynclog.flush()\nos._exit(4)", 200, status=4),
    Program("script", "sys.exit in a thread", THREAD, 300),
    Program("script", "a thread logs after the end of main", LATE_THREAD, 300),
    Program("script", "daemon threads log until they are stopped", DAEMON_THREAD, 200),
    Program("script", "records from atexit callbacks", ATEXIT, 300, first=ATEXIT_FIRST, quick=True),
    Program(
        "script", "records from __del__ at interpreter exit", FINALIZER, 300,
        skip="free-threaded 3.13 that has had a thread calls __del__ when the modules are gone" * FREE_THREADED_313,
    ),
    Program(
        "script", "Ctrl-C while it logs", BUSY, 200, signal=signal.SIGINT, output=TRACEBACK.format("KeyboardInterrupt")
    ),
    Program("script", "SIGTERM while it logs", BUSY, 200, signal=signal.SIGTERM, quick=True),
    *(
        Program("script", f"SIGTERM in {name}", WAITS.replace("WAIT", wait), 200, signal=signal.SIGTERM)
        for name, wait in WAYS_TO_WAIT.items()
    ),
    Program(
        "script", "SIGTERM, its handler, set before, exits", WAITS.replace("WAIT", "time.sleep(600)"), 220,
        first=HANDLER, signal=signal.SIGTERM, status=5,
    ),
    Program(
        "script", "SIGTERM, its handler, set after, exits", HANDLER + WAITS.replace("WAIT", "time.sleep(600)"), 220,
        signal=signal.SIGTERM, status=5,
    ),
    Program(
        "script", "SIGTERM, the app made in a thread", WAITS.replace("WAIT", "time.sleep(600)"), 200,
        first=IN_A_THREAD, signal=signal.SIGTERM, limit="Python lets only the main thread handle signals",
    ),
    Program("script", "SIGTERM, and again 2 ms later", TWICE, 5000, status=-signal.SIGTERM),
    Program("script", "SIGTERM is ignored", IGNORED, 200, first="signal.signal(signal.SIGTERM, signal.SIG_IGN)"),
    Program("script", "a signal handler logs, thousands of times", ALARMS, 41_000, flush_interval=0.01),
    Program("script", "garbage logs when it is collected", GARBAGE, 9000, flush_interval=0.001),
    Program("python -c", "end of main", "log(200)", 200, command=("-c", "CODE")),
    Program("python, code from stdin", "end of input", "", 200, command=("-",), stdin=STDIN),
    Program("flask command", "returns", COMMAND.format("pass"), 200, command=WORK, quick=True),
    Program("flask command", "ctx.exit(3)", COMMAND.format("context.exit(3)"), 200, command=WORK, status=3),
    Program(
        "flask command", "unhandled exception", COMMAND.format(FAIL), 200, command=WORK, status=1, output=FAILURE
    ),
    Program(
        "flask command", "Ctrl-C", COMMAND.format("ready(); time.sleep(600)"), 200, command=WORK,
        signal=signal.SIGINT, status=1, output=r"\s*Aborted!\n",
    ),
    Program(
        "flask command", "SIGTERM", COMMAND.format("ready(); time.sleep(600)"), 200, command=WORK,
        signal=signal.SIGTERM,
    ),
    Program(
        "flask shell", "end of input", "", 200, command=(*FLASK, "shell"), stdin=STDIN, output=".*>>> .*",
    ),
]  # fmt: skip

CELLS = [program.cell for program in PROGRAMS]
