"""handlers.transport.worker_lock between real processes, as locks are a process's."""

import subprocess
import sys
from pathlib import Path

import pytest

from handlers.transport.worker_lock import Siblings
from serving.polling import wait_until

ROOT = Path(__file__).resolve().parents[3]
# Says "here" when it is one of the siblings, and then answers each line.
OTHER = """
import sys
from pathlib import Path
from handlers.transport.worker_lock import Siblings
siblings = Siblings(Path(sys.argv[1]))
print("here", flush=True)
for line in sys.stdin:
    if line.strip() == "let come":
        siblings.let_come()
    print(siblings.none() if line.strip() == "none" else "done", flush=True)
"""


class Other:
    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def reads(self):
        return self.process.stdout.readline().strip()

    def asked(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.reads()

    def ends(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def come(tmp_path):
    others = []

    def start():
        others.append(Other(tmp_path))
        return others[-1]

    yield start
    for other in others:
        other.ends()


def test_one_that_comes_is_seen_until_it_ends(tmp_path, come):
    siblings = Siblings(tmp_path)
    assert siblings.none()
    siblings.let_come()
    other = come()
    assert other.reads() == "here"
    assert not siblings.none()
    assert other.asked("none") == "False"
    other.ends()
    assert siblings.none()


def waits_for_a_lock(pid):
    """Whether the kernel lists a process among those that wait for a lock of a file (proc_locks(5))."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(fields[1] == "->" and fields[5] == str(pid) for fields in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists who waits for a lock")
def test_one_that_comes_waits_for_who_acts_on_being_alone(come):
    first = come()
    assert first.reads() == "here"
    assert first.asked("none") == "True"
    second = come()
    assert wait_until(lambda: waits_for_a_lock(second.process.pid), 30)
    # It is seen while it waits, and stays so however often the first asks.
    assert [first.asked("none") for _ in range(3)] == ["False"] * 3
    first.asked("let come")
    assert [first.asked("none") for _ in range(3)] == ["False"] * 3
    assert second.reads() == "here"


def test_the_end_of_who_acts_lets_the_others_come(come):
    first = come()
    assert first.reads() == "here"
    assert first.asked("none") == "True"
    second = come()
    first.ends()
    assert second.reads() == "here"
    assert second.asked("none") == "True"


def test_versions_have_folders_of_their_own(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert all(Siblings(tmp_path / name).none() for name in ("one", "other"))


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Siblings(tmp_path / "missing")
