"""A CPU quota for processes that run already: a control group of version 1 or 2 for each replica of a measurement."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

# The kernel's default: a group that has spent its quota waits for the end of this period.
PERIOD_US = 100_000
_ROOT = Path("/sys/fs/cgroup")


class LimitError(Exception):
    """The control group cannot be made; the message has the remedy."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """Counters of a group since its start.

    Attributes:
        cpu_s: processor time in seconds.
        periods: periods of 100 ms in which the group had work.
        throttled: those in which it spent its quota.
    """

    cpu_s: float
    periods: int
    throttled: int

    def since(self, before: Usage) -> Usage:
        """The difference to an earlier reading."""
        return Usage(self.cpu_s - before.cpu_s, self.periods - before.periods, self.throttled - before.throttled)


@dataclasses.dataclass(frozen=True)
class Group:
    """One control group; ``accounting`` is the folder with its processor time."""

    folder: Path
    accounting: Path

    def usage(self) -> Usage:
        """Read the counters."""
        stat = dict(line.split() for line in (self.folder / "cpu.stat").read_text().splitlines())
        if "usage_usec" in stat:
            cpu_s = int(stat["usage_usec"]) / 1e6
        else:
            cpu_s = int((self.accounting / "cpuacct.usage").read_text()) / 1e9
        return Usage(cpu_s, int(stat["nr_periods"]), int(stat["nr_throttled"]))


def _processes(roots: Iterable[psutil.Process]) -> Iterator[psutil.Process]:
    for process in roots:
        yield process
        yield from process.children(recursive=True)


@contextmanager
def group(name: str, processes: Iterable[psutil.Process], cpus: float) -> Iterator[Group]:
    """Limit processes and their children to a quota; the block's end moves them back and removes the group.

    Args:
        name: the group's name, not yet in use.
        processes: their roots.
        cpus: processor seconds per second.

    Raises:
        LimitError: no permission, or no CPU controller.
    """
    second_version = (_ROOT / "cgroup.controllers").exists()
    tops = [_ROOT] if second_version else [_ROOT / "cpu", _ROOT / "cpuacct"]
    folders = [top / name for top in tops]
    quota_us = round(cpus * PERIOD_US)
    try:
        for folder in folders:
            folder.mkdir()
        if second_version:
            (_ROOT / "cgroup.subtree_control").write_text("+cpu")
            (folders[0] / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        else:
            (folders[0] / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (folders[0] / "cpu.cfs_quota_us").write_text(str(quota_us))
        for process in _processes(processes):
            for folder in folders:
                (folder / "cgroup.procs").write_text(str(process.pid))
    except OSError as error:
        _remove(folders, tops)
        raise LimitError(f"cannot limit CPUs by a control group: {error}; run as root on Linux") from error
    try:
        yield Group(folders[0], folders[-1])
    finally:
        _remove(folders, tops)


def _remove(folders: list[Path], tops: list[Path]) -> None:
    for folder, top in zip(folders, tops, strict=True):
        if not folder.exists():
            continue
        for pid in (folder / "cgroup.procs").read_text().split():
            (top / "cgroup.procs").write_text(pid)
        folder.rmdir()
