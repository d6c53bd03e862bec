"""handlers.transport.worker_lock between real processes, because each process has its own locks."""

import subprocess
import sys
from pathlib import Path

import pytest

from handlers.transport.worker_lock import WorkerLock
from serving.polling import wait_until

ROOT = Path(__file__).resolve().parents[3]
# Prints "started" when it has its lock, and then the result of each method that it reads the name of.
WORKER = """
import sys
from pathlib import Path
from handlers.transport.worker_lock import WorkerLock
lock = WorkerLock(Path(sys.argv[1]))
print("started", flush=True)
for line in sys.stdin:
    print(getattr(lock, line.strip())(), flush=True)
"""


class Worker:
    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def read(self):
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def call(self, method):
        assert self.process.stdin
        self.process.stdin.write(f"{method}\n")
        self.process.stdin.flush()
        return self.read()

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start_worker(tmp_path):
    workers = []

    def start():
        workers.append(Worker(tmp_path))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


def test_another_worker_is_noticed_until_it_ends(tmp_path, start_worker):
    lock = WorkerLock(tmp_path)
    assert lock.acquire()
    lock.release()
    other = start_worker()
    assert other.read() == "started"
    assert not lock.acquire()
    assert other.call("acquire") == "False"
    other.kill()
    assert lock.acquire()


def waits_for_a_lock(pid):
    """Whether the kernel lists a process as blocked on a file lock (proc_locks(5))."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(fields[1] == "->" and fields[5] == str(pid) for fields in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the processes that wait for a lock")
def test_a_new_worker_blocks_until_the_first_releases_the_lock(start_worker):
    first = start_worker()
    assert first.read() == "started"
    assert first.call("acquire") == "True"
    second = start_worker()
    assert wait_until(lambda: waits_for_a_lock(second.process.pid), 30)
    # The first worker notices the second while it blocks, and further attempts do not change that.
    assert [first.call("acquire") for _ in range(3)] == ["False"] * 3
    first.call("release")
    assert [first.call("acquire") for _ in range(3)] == ["False"] * 3
    assert second.read() == "started"


def test_a_new_worker_starts_when_the_one_with_the_lock_dies(start_worker):
    first = start_worker()
    assert first.read() == "started"
    assert first.call("acquire") == "True"
    second = start_worker()
    first.kill()
    assert second.read() == "started"
    assert second.call("acquire") == "True"


def test_workers_of_different_versions_do_not_share_a_lock(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert all(WorkerLock(tmp_path / name).acquire() for name in ("one", "other"))


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        WorkerLock(tmp_path / "missing")
