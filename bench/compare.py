"""Compare this service with other model servers: same network, bodies and answers, on one machine, in one run.

    python -m bench.compare [TABLE …]      make bench-peers; needs wrk, and the peers' environments

Tables: ``mlp`` and ``convnet`` (raw pixels), ``png`` (PNG files), ``lone`` (one caller; the peers
without batches, this service through its gateway, which passes such a request to a worker without batches).
First, each peer's fastest setting is found. Then all servers are measured in turn, for several rounds, while the others
are paused by a signal. Results are written to ``bench/results/peers-<table>.json``; ``bench.charts`` draws them.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from numpy.typing import NDArray
from PIL import Image

from bench import local_service, reporting, wrk
from models import catalog
from models.datasets import fashion_mnist
from serving.settings import ROOT

PEERS = Path(__file__).parent / "peers"
ROUNDS = 5
ROUND_S = 1
WARM_UP_CONNECTIONS = 64
# Servers on Java need longer, `local_service.WARM_UP_S`.
WARM_UP_S = 8
# A peer that has not answered by then counts as missing.
START_TIMEOUT_S = 120.0
JSON = {"Content-Type": "application/json"}
RAW = {"Content-Type": "application/octet-stream"}


class PeerError(Exception):
    """A server did not start, or gave a wrong answer; the message has the details."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A server's setting: worker processes, largest batch, and how long a batch may wait to fill."""

    workers: int
    batch: int
    wait_ms: float

    def __str__(self) -> str:
        return f"{self.workers} worker(s), batch {self.batch}, {self.wait_ms:g} ms"


@dataclasses.dataclass(frozen=True)
class Table:
    """One comparison.

    Attributes:
        model: the network.
        form: the form of the bodies.
        connections: the numbers of concurrent callers.
        setting: one setting for all peers; without it, each peer's fastest.
        settings_of: another table; if it has been measured, its settings are used.
    """

    model: str
    form: str
    connections: tuple[int, ...] = (1, 16, 64, 256)
    setting: Setting | None = None
    settings_of: str | None = None


@dataclasses.dataclass(frozen=True)
class Peer:
    """One server.

    Attributes:
        package: the package whose version is reported; it also names the environment and requirements.
        command: the arguments of ``python``.
        path: the path for predictions.
        pack: converts a body of some form to this server's body and headers.
        unpack: reads the likeliest label's index from an answer.
        settings: the settings to try.
        pausable: whether the server survives a pause of a minute by SIGSTOP.
    """

    package: str
    command: tuple[str, ...]
    path: str
    pack: Callable[[bytes, str], tuple[bytes, Mapping[str, str]]]
    unpack: Callable[[requests.Response], int]
    settings: tuple[Setting, ...]
    pausable: bool = True


def _plain(body: bytes, form: str) -> tuple[bytes, Mapping[str, str]]:
    return body, RAW if form == "raw" else {"Content-Type": "image/png"}


def _base64_json(wrap: Callable[[str], Any]) -> Callable[[bytes, str], tuple[bytes, Mapping[str, str]]]:
    return lambda body, _: (json.dumps(wrap(base64.b64encode(body).decode())).encode(), JSON)


def _oip_json(image: str) -> dict[str, Any]:
    parameters = {"content_type": "base64"}
    tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": parameters, "data": [image]}
    return {"inputs": [tensor]}


def _oip_binary(body: bytes, form: str) -> tuple[bytes, Mapping[str, str]]:
    shape, datatype = ([1, 28, 28], "UINT8") if form == "raw" else ([1, 1], "BYTES")
    data = body if form == "raw" else len(body).to_bytes(4, "little") + body
    tensor = {"name": "image", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    output = {"name": "probabilities", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    return head + data, {**RAW, "Inference-Header-Content-Length": str(len(head))}


def _oip_binary_best(answer: requests.Response) -> int:
    head = int(answer.headers["Inference-Header-Content-Length"])
    return int(np.frombuffer(answer.content[head:], np.float32).argmax())


def _best(answer: requests.Response) -> int:
    return int(answer.json()["class"])


def _settings(*each: tuple[int, int, float]) -> tuple[Setting, ...]:
    return tuple(Setting(*values) for values in each)


def _module(name: str) -> tuple[str, ...]:
    return "-m", f"bench.peers.{name}"


# This service with its default settings.
OURS = "fashion-serve"
BATCHING = _settings((2, 32, 1), (2, 64, 1), (1, 64, 1))
ALL: dict[str, Peer] = {
    "Triton (Python backend)": Peer(
        "nvidia-pytriton",
        _module("triton_server"),
        "/v2/models/classifier/infer",
        _oip_binary,
        _oip_binary_best,
        _settings((2, 32, 0.1), (2, 64, 0.5), (1, 64, 0.5)),
        # It mistakes the pause for the death of its Python processes. It uses almost no processor time when idle.
        pausable=False,
    ),
    "mosec": Peer(
        "mosec",
        _module("mosec_server"),
        "/inference",
        _plain,
        _best,
        _settings((2, 32, 1), (2, 16, 1), (2, 64, 1), (1, 64, 1)),
    ),
    "LitServe": Peer(
        "litserve",
        _module("litserve_server"),
        "/predict",
        _base64_json(lambda image: {"image": image}),
        _best,
        BATCHING,
    ),
    "MLServer": Peer(
        "mlserver",
        _module("mlserver_server"),
        "/v2/models/classifier/infer",
        _base64_json(_oip_json),
        lambda answer: int(json.loads(answer.json()["outputs"][0]["data"][0])["class"]),
        _settings((1, 1, 0), (1, 32, 1), (2, 32, 1)),
    ),
    "BentoML": Peer(
        "bentoml",
        ("-m", "bentoml", "serve", "bench.peers.bentoml_server:Classify", "--host", "127.0.0.1"),
        "/predict",
        _base64_json(lambda image: {"images": [image]}),
        lambda answer: int(answer.json()[0]["class"]),
        _settings((1, 64, 10), (2, 64, 10), (2, 64, 50)),
    ),
    "Ray Serve": Peer(
        "ray",
        _module("ray_server"),
        "/predict",
        _plain,
        _best,
        BATCHING,
    ),
    "FastAPI": Peer(
        "fastapi",
        _module("fastapi_server"),
        "/predict",
        _plain,
        _best,
        _settings((1, 1, 0), (2, 1, 0), (2, 32, 0)),
    ),
    "TorchServe (MNIST example)": Peer(
        "torchserve",
        _module("torchserve_example"),
        "/predictions/mnist",
        # Its handler accepts only pictures.
        lambda body, form: _plain(body if form == "png" else _png(body), "png"),
        lambda answer: int(answer.text),
        _settings((0, 1, 0)),
    ),
}
TABLES = {
    "mlp": Table("fashion_mlp", "raw"),
    "convnet": Table("fashion_convnet", "raw", settings_of="mlp"),
    "png": Table("fashion_mlp", "png", settings_of="mlp"),
    "lone": Table("fashion_mlp", "raw", (1,), Setting(1, 1, 0)),
}


def _png(pixels: bytes) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(28, 28)).save(file, "png")
    return file.getvalue()


def environment_of(package: str) -> Path:
    """The folder of a peer's virtual environment."""
    return PEERS / f".venv-{package.removeprefix('nvidia-py')}"


class Server:
    """A running server with all its processes."""

    def __init__(
        self, url: str, headers: Mapping[str, str], body: bytes, roots: list[psutil.Process], pausable: bool = True
    ) -> None:
        self.url, self.headers, self.body = url, headers, body
        self._roots = roots
        self._pausable = pausable

    def processes(self) -> list[psutil.Process]:
        """The root processes and their descendants."""
        processes: list[psutil.Process] = []
        for root in self._roots:
            try:
                processes += [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return processes

    def pause(self) -> None:
        """Stop all processes until ``resume``."""
        # Let the last requests finish: a server that is stopped while it works would later restart its workers.
        time.sleep(0.5)
        if self._pausable:
            self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue all processes."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes."""
        for process in self.processes():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def load(self, connections: int, seconds: int = ROUND_S) -> wrk.Load:
        """Send requests over a number of connections."""
        return wrk.run(self.url, connections, seconds, self.body, self.headers)


def _await(server: Server, unpack: Callable[[requests.Response], int], expected: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        fault: object
        try:
            answer = requests.post(server.url, server.body, headers=dict(server.headers), timeout=10)
            if answer.ok:
                break
            fault = f"{answer.status_code} {answer.text[:200]}"
        except requests.RequestException as error:
            fault = error
        if time.monotonic() > deadline or not server.processes():
            raise PeerError(f"{fault}; the end of its log: {log.read_text(errors='replace')[-600:]}")
        time.sleep(0.2)
    label = unpack(answer)
    if label != expected:
        raise PeerError(f"the answer must be class {expected}, got {label}")


@contextmanager
def running(name: str, table: Table, setting: Setting, body: bytes, expected: int) -> Iterator[Server]:
    """Run a peer and check its first answer; all its processes end with the block.

    Raises:
        PeerError: the peer is not installed, did not start, or gave a wrong answer.
    """
    peer = ALL[name]
    python = environment_of(peer.package) / "bin" / "python"
    if not python.exists():
        raise PeerError("not installed; run: make bench-peers")
    # Some servers also use the ports after this one, for their other interfaces.
    port = local_service.free_ports(1)[0]
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder:
        environment = {
            **os.environ,
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": folder,
            "PEER_ARTIFACT": str(ROOT / "artifacts" / table.model / "1.0"),
            "PEER_FORM": table.form,
            "PEER_PORT": str(port),
            "PEER_WORKERS": str(setting.workers),
            "PEER_BATCH": str(setting.batch),
            "PEER_WAIT_MS": str(setting.wait_ms),
            "MOSEC_PORT": str(port),
            "MOSEC_ADDRESS": "127.0.0.1",
            "MOSEC_LOG_LEVEL": "error",
            "MOSEC_CAPACITY": "4096",
            "BENTOML_PORT": str(port),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
        }
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(python), *peer.command],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        packed, headers = peer.pack(body, table.form)
        url = f"http://127.0.0.1:{port}{peer.path}"
        server = Server(url, headers, packed, [psutil.Process(process.pid)], peer.pausable)
        try:
            _await(server, peer.unpack, expected, log)
            yield server
        finally:
            tree = server.processes()
            server.resume()
            process.terminate()
            psutil.wait_procs(tree, timeout=10)
            for member in tree:
                if member.is_running():
                    member.kill()
            process.wait()


@contextmanager
def ours(table: Table, body: bytes, expected: int) -> Iterator[Server]:
    """Run this service; the load uses TorchServe's own port, because the peers have no gateway.

    A lone caller's load uses the gateway, which the worker without batches is for.
    """
    with local_service.service([table.model]) as service:
        packed, headers = _plain(body, table.form)
        address = service.gateway if table.connections == (1,) else service.inference
        url = f"{address}/predictions/{table.model}"
        # Its supervisor would restart a paused process. The service uses almost no processor time when idle.
        server = Server(url, headers, packed, list(service.processes.values()), pausable=False)
        _await(server, _best, expected, Path(os.devnull))
        try:
            yield server
        finally:
            server.resume()


def _tune(name: str, table: Table, body: bytes, expected: int) -> tuple[Setting, dict[str, dict[str, int]]]:
    """Find the setting with the highest geometric mean of the rates at all numbers of connections.

    Returns:
        The setting, and for each setting the requests per second by number of connections.
    """
    tried: dict[str, dict[str, int]] = {}
    best: tuple[float, Setting] | None = None
    for setting in ALL[name].settings:
        _log(f"{name}: trying {setting}")
        try:
            with running(name, table, setting, body, expected) as server:
                server.load(WARM_UP_CONNECTIONS, 2)
                rates = {c: max(server.load(c).rate, 1.0) for c in table.connections if c > 1}
        except PeerError as error:
            if setting == ALL[name].settings[-1] and best is None:
                raise
            print(f"{name} with {setting}: {error}", file=sys.stderr)
            continue
        tried[str(setting)] = {str(connections): round(rate) for connections, rate in rates.items()}
        rate = statistics.geometric_mean(rates.values())
        if best is None or rate > best[0]:
            best = rate, setting
    assert best is not None
    return best[1], tried


def _log(text: str) -> None:
    print(f"{time.strftime('%X')} {text}", file=sys.stderr, flush=True)


def _expected(model: str, image: NDArray[np.uint8]) -> int:
    """The network's own class for an image, computed in this process."""
    os.environ.update(PEER_ARTIFACT=str(ROOT / "artifacts" / model / "1.0"), PEER_FORM="raw")
    from bench.peers.predictor import Predictor

    return int(Predictor().probabilities(image[None]).argmax())


def _earlier_settings(table: Table) -> dict[str, tuple[Setting, dict[str, Any]]]:
    """The settings of ``table.settings_of`` by peer, with the rates of all tried settings; empty if not measured."""
    path = reporting.RESULTS / f"peers-{table.settings_of}.json"
    if not table.settings_of or not path.exists():
        return {}
    servers = json.loads(path.read_text())["results"]["servers"]
    return {name: (Setting(**each["values"]), each["tried"]) for name, each in servers.items() if "values" in each}


def _ready(stack: ExitStack, name: str, table: Table, setting: Setting, body: bytes, expected: int) -> Server:
    """Start a peer, warm it up and pause it; the stack ends it."""
    server = stack.enter_context(running(name, table, setting, body, expected))
    warm_up = local_service.WARM_UP_S if ALL[name].package == "torchserve" else WARM_UP_S
    server.load(WARM_UP_CONNECTIONS, warm_up)
    server.pause()
    return server


def _round(server: Server, table: Table) -> dict[int, wrk.Load]:
    """One server's turn: the load at each number of connections."""
    server.resume()
    server.load(WARM_UP_CONNECTIONS, 1)
    loads = {connections: server.load(connections) for connections in table.connections}
    server.pause()
    return loads


def compare(title: str) -> dict[str, Any]:
    """Measure one table: each server's setting, and the figures of all rounds by number of connections."""
    table = TABLES[title]
    image = fashion_mnist().test_inputs[0].numpy()
    body = image.tobytes() if table.form == "raw" else _png(image.tobytes())
    expected = _expected(table.model, image)
    results: dict[str, Any] = {}
    missing: dict[str, str] = {}
    earlier = _earlier_settings(table)
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name in ALL:
            try:
                preset = (table.setting, {}) if table.setting else earlier.get(name)
                setting, tried = preset or _tune(name, table, body, expected)
                _log(f"{name}: {setting}")
                servers[name] = _ready(stack, name, table, setting, body, expected)
                results[name] = {"setting": str(setting), "values": dataclasses.asdict(setting), "tried": tried}
            except PeerError as error:
                missing[name] = str(error)
                _log(f"{name} is missing: {error}")
        server = servers[OURS] = stack.enter_context(ours(table, body, expected))
        server.load(WARM_UP_CONNECTIONS, local_service.WARM_UP_S)
        serving = catalog.get(table.model).serving
        setting = Setting(serving.workers, serving.batch_size, serving.max_batch_delay_ms)
        results[OURS] = {"setting": str(setting), "tried": {}}
        loads: dict[str, dict[int, list[wrk.Load]]] = {
            name: {connections: [] for connections in table.connections} for name in servers
        }
        for turn in range(1, ROUNDS + 1):
            for name in list(servers):
                _log(f"{title}: round {turn} of {ROUNDS}, {name}")
                try:
                    by_connections = _round(servers[name], table)
                except wrk.LoadError:
                    if name == OURS:
                        raise
                    _log(f"{name} has died; restarting it")
                    results[name]["deaths"] = results[name].get("deaths", 0) + 1
                    setting = Setting(**results[name]["values"])
                    servers[name] = _ready(stack, name, table, setting, body, expected)
                    by_connections = _round(servers[name], table)
                for connections, load in by_connections.items():
                    loads[name][connections].append(load)
    for name, each in loads.items():
        results[name]["connections"] = {
            str(connections): {
                "rates": [round(load.rate) for load in rounds],
                "requests_per_second": statistics.median(load.rate for load in rounds),
                "p50_ms": statistics.median(load.p50 for load in rounds),
                "p99_ms": statistics.median(load.p99 for load in rounds),
                "failed": sum(load.failed for load in rounds),
            }
            for connections, rounds in each.items()
        }
        results[name]["version"] = _version(name)
    return {"model": table.model, "form": table.form, "servers": results, "missing": missing}


def _version(name: str) -> str:
    if name == OURS:
        command = ["git", "describe", "--always"]
    else:
        package = ALL[name].package
        python = environment_of(package) / "bin" / "python"
        command = [str(python), "-c", f"from importlib.metadata import version; print(version({package!r}))"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    """Measure the tables named on the command line, or all; return the exit code."""
    titles = sys.argv[1:] or list(TABLES)
    if unknown := [title for title in titles if title not in TABLES]:
        print(f"error: a table must be one of {', '.join(TABLES)}, got {unknown[0]}", file=sys.stderr)
        return 2
    try:
        for title in titles:
            results = compare(title)
            print(f"→ {reporting.write(f'peers-{title}', results)}")
            for name, server in results["servers"].items():
                cells = [
                    f"c={c}: {f['requests_per_second']:,.0f} ({f['p50_ms']:.2f} ms)"
                    for c, f in server["connections"].items()
                ]
                print(f"{name:<28} {server['setting']:<18} {'  '.join(cells)}")
    except (wrk.LoadError, PeerError, local_service.ServiceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
