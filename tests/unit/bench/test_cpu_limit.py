"""CPU quotas, in a folder that takes the place of the kernel's control groups, of version 1 and 2."""

from __future__ import annotations

import psutil
import pytest

from bench import cpu_limit

STAT = "nr_periods 10\nnr_throttled 4\n"


def test_version_1_reads_processor_time_from_its_own_controller(tmp_path):
    (tmp_path / "cpu.stat").write_text(STAT + "throttled_time 9\n")
    (tmp_path / "cpuacct.usage").write_text("2500000000\n")
    assert cpu_limit.Group(tmp_path, tmp_path).usage() == cpu_limit.Usage(2.5, 10, 4)


def test_version_2_reads_processor_time_from_the_same_file(tmp_path):
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\n" + STAT)
    assert cpu_limit.Group(tmp_path, tmp_path).usage() == cpu_limit.Usage(2.5, 10, 4)


def test_usage_is_counted_from_an_earlier_reading():
    assert cpu_limit.Usage(3.0, 10, 5).since(cpu_limit.Usage(1.0, 4, 2)) == cpu_limit.Usage(2.0, 6, 3)


def test_a_system_without_the_controller_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_limit, "_ROOT", tmp_path / "absent")
    with pytest.raises(cpu_limit.LimitError, match="run as root on Linux"), cpu_limit.group("x", [psutil.Process()], 1):
        pass
