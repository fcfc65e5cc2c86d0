"""Processes that make processes: ``os.fork``, daemons, ``multiprocessing``, executors, ``subprocess``."""

from __future__ import annotations

from matrix.programs import FREE_THREADED_313, Program

#: Three threads log while the main thread forks, four children at a time; each logs a little and ends.
TRAFFIC = """
warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*multi-threaded.*fork")
done = threading.Event()

def work():
    while not done.is_set():
        log(10, "thread")
        time.sleep(0.005)

threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
gc.freeze()  # cheaper forks, as in servers that fork
pids = []
for number in range(40):
    pid = os.fork()
    if pid == 0:
        break
    pids.append(pid)
    if len(pids) == 4:
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        assert statuses == [0, 0, 0, 0], statuses
        pids.clear()
if pid == 0:
    log(3, "child")
    {}
else:
    done.set()
    for thread in threads:
        thread.join()
    log(3, "parent")
"""

#: In ``dict.get`` of ``sys.modules`` or of logging's levels.
DEADLOCK = "a child of free-threaded 3.13 waits for the lock of a dict that another thread held at the fork"

ENDS_OF_A_CHILD = {
    "end of main": "pass",
    "sys.exit(0)": "sys.exit(0)",
    "flush, then os._exit(0)": "asynclog.flush(); os._exit(0)",
}

#: A child, its child, and that one's, each forked while records of its parent wait.
GENERATIONS = """
for generation in range(4):
    log(50, f"generation{generation}")
    pid = os.fork()
    if pid:
        break
log(50, "end")
if pid:
    assert os.waitpid(pid, 0)[1] == 0
"""

#: A server's master: children that run until SIGTERM, which it passes on.
MASTER = """
pids = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        log(50, "child")
        note("", "children")
        time.sleep(600)
    pids.append(pid)
log(50, "parent")
while not os.path.exists("children") or os.path.getsize("children") < 4:
    time.sleep(0.01)
for pid in pids:
    os.kill(pid, signal.SIGTERM)
statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
assert statuses == 4 * [-signal.SIGTERM], statuses
"""

#: With warnings as errors, beside no thread but ours, which runs.
NO_WARNING = """
for _ in range(30):
    log(10)
    asynclog.flush()
    log(10)
    pid = os.fork()
    if pid == 0:
        log(1, "child")
        asynclog.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""

DAEMON = """
log(200)
if os.fork():
    os._exit(0)
os.setsid()
note(os.getpid(), "detached")
if os.fork():
    os._exit(0)
os.chdir("/")
{}
log(50, "daemon")
"""

CLOSE_ALL = """
os.closerange(3, 256)
null = os.open(os.devnull, os.O_RDWR)
for fd in range(3):
    os.dup2(null, fd)
"""

#: Of a daemon that is told to end by whoever has its process id.
TERMINATED = """
log(50, "daemon")
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(600)
"""

PARTS = """
def work(number):
    log(50, "child")
    return number

def hang(number):
    log(50, "child")
    note("", "children")
    time.sleep(600)

def wait_for_children():
    while not os.path.exists("children") or os.path.getsize("children") < 4:
        time.sleep(0.01)

if __name__ == "__main__":
    context = multiprocessing.get_context("{}")
    log(50)
"""

#: What is done with `PARTS`.
MULTIPROCESSING = {
    "4 processes": """
    children = [context.Process(target=work, args=[number]) for number in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0, 0]
""",
    "4 processes, terminated": """
    children = [context.Process(target=hang, args=[number]) for number in range(4)]
    for child in children:
        child.start()
    wait_for_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == 4 * [-signal.SIGTERM]
""",
    "4 daemonic processes, terminated at the end of their parent": """
    for number in range(4):
        context.Process(target=hang, args=[number], daemon=True).start()
    wait_for_children()
""",
    "Pool, closed": """
    with context.Pool(2) as pool:
        assert pool.map(work, range(4), chunksize=1) == [0, 1, 2, 3]
        pool.close()
        pool.join()
""",
    "Pool, terminated": """
    with context.Pool(2) as pool:
        assert pool.map(work, range(4), chunksize=1) == [0, 1, 2, 3]
""",
    "Pool, maxtasksperchild=1": """
    with context.Pool(2, maxtasksperchild=1) as pool:
        assert pool.map(work, range(4), chunksize=1) == [0, 1, 2, 3]
        pool.close()
        pool.join()
""",
    "ProcessPoolExecutor": """
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(work, range(4))) == [0, 1, 2, 3]
""",
}

THREAD_POOL = """
def work(number):
    log(50, "thread")

log(50)
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(work, range(8)))
"""

#: Not waited for: the interpreter does so itself.
THREAD_POOL_LEFT = """
pool = concurrent.futures.ThreadPoolExecutor(2)
for _ in range(8):
    pool.submit(lambda: (time.sleep(0.05), log(50, "thread")))
log(50)
"""

SUBPROCESSES = """
log(100)
if len(sys.argv) == 1:
    children = [subprocess.Popen([sys.executable, "program.py", "child"]) for _ in range(3)]
    log(100)
    assert [child.wait() for child in children] == [0, 0, 0]
"""

PROGRAMS = [
    *(
        Program(
            "os.fork amid traffic",
            end,
            TRAFFIC.format(code),
            120,
            flush_interval=0.01,
            quick=end == "end of main",
            skip=DEADLOCK * FREE_THREADED_313,
        )
        for end, code in ENDS_OF_A_CHILD.items()
    ),
    Program("os.fork", "children of children", GENERATIONS, 400),
    Program("os.fork", "SIGTERM to the children", MASTER, 250),
    Program(
        "os.fork", "no warning that we fork beside threads", NO_WARNING, 630, command=("-W", "error", "program.py")
    ),
    Program("daemon", "end of main", DAEMON.format(""), 250, quick=True),
    Program("daemon, all descriptors closed", "end of main", DAEMON.format(CLOSE_ALL), 250),
    Program("daemon", "SIGTERM", DAEMON.format(TERMINATED), 250),
    *(
        Program(f"multiprocessing {method}", event, PARTS.format(method) + code, 250)
        for method in ("fork", "spawn", "forkserver")
        for event, code in MULTIPROCESSING.items()
    ),
    Program("ThreadPoolExecutor", "shut down", THREAD_POOL, 450),
    Program("ThreadPoolExecutor", "still at work at the end of main", THREAD_POOL_LEFT, 450),
    Program("subprocess", "one log", SUBPROCESSES, 500),
]

CELLS = [program.cell for program in PROGRAMS]
