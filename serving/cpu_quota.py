"""The CPUs of this machine or container."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The number of CPUs that this process may use, by its scheduler affinity and its container's quota.

    Args:
        cgroup: the mount point of cgroups, version 2 or 1.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        # Without a quota, version 2 holds the word "max" and version 1 the number -1.
        with suppress(OSError, ValueError):
            quota, period = (int(number) for name in names for number in (cgroup / name).read_text().split())
            if quota > 0:
                cpus = min(cpus, math.ceil(quota / period))
    return cpus
