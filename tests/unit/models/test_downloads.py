"""Sources fetch the right files or fail within seconds with a reason; with real HTTP servers and a real apt."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from models import downloads
from models.downloads import Mirror, Package, display
from models.errors import DataError
from tests.support import free_ports

NAMES = ("images", "labels")
PACKED = {f"{name}.gz": gzip.compress(name.encode() * 20_000) for name in NAMES}
FOLDER = Path("/usr/share/datasets/some")


def check(name: str, packed: bytes) -> None:
    if PACKED[name] != packed:
        raise DataError(f"{name} is altered")


def fetch(source: downloads.Source, folder: Path) -> None:
    with display(disable=True) as progress:
        source.fetch(NAMES, folder, check, progress)


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Server:
    """Serves the files under any folder; the first responses are the given faults."""

    def __init__(self, *faults: str) -> None:
        self.requests: list[str] = []
        script, server = list(faults), self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                fault = script.pop(0) if script else None
                body = PACKED[self.path.split("/")[-1]]
                self.send_response(503 if fault == "busy" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if fault == "altered":
                    body = b"x" * len(body)
                self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.mirror = Mirror(f"http://127.0.0.1:{self._server.server_port}/data")
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(downloads, "_RETRY_DELAY_S", 0.0)
    servers = []

    def start(*faults: str) -> Server:
        servers.append(Server(*faults))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_mirror_gives_the_files(serve, tmp_path):
    server = serve()
    fetch(server.mirror, tmp_path)
    assert written(tmp_path) == PACKED
    assert server.requests == ["/data/images.gz", "/data/labels.gz"]


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_an_interrupted_transfer_is_retried_once(serve, tmp_path, fault):
    server = serve(fault)
    fetch(server.mirror, tmp_path)
    assert written(tmp_path) == PACKED
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("faults", "reason"),
    [(["busy", "busy"], "503"), (["cut", "cut"], "broke|IncompleteRead"), (["altered"], "images.gz is altered")],
    ids=["busy", "cut", "altered"],
)
def test_a_mirror_that_keeps_failing_leaves_no_files(serve, tmp_path, faults, reason):
    with pytest.raises(DataError, match=reason):
        fetch(serve(*faults).mirror, tmp_path)
    assert written(tmp_path) == {}


def test_a_server_that_never_answers_fails_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_READ_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        with pytest.raises(DataError, match=r"no answer within 0\.2 s"):
            fetch(Mirror(f"http://127.0.0.1:{silent.getsockname()[1]}"), tmp_path)
    assert time.monotonic() - begin < 10


def test_a_transfer_that_trickles_is_abandoned(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_GRACE_S", 0.0)
    monkeypatch.setattr(downloads, "_SLOWEST_BYTES_PER_S", 1e12)
    with pytest.raises(DataError, match="no answer within"):
        fetch(serve().mirror, tmp_path)


def test_a_closed_port_is_reported(tmp_path):
    (port,) = free_ports.find(1)
    with pytest.raises(DataError, match=r"no connection to 127\.0\.0\.1 .*refused"):
        fetch(Mirror(f"http://127.0.0.1:{port}"), tmp_path)


def test_a_name_that_does_not_resolve_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"no connection to nowhere\.invalid"):
        fetch(Mirror("https://nowhere.invalid/data"), tmp_path)


def test_a_name_that_resolves_forever_fails_within_seconds(tmp_path, monkeypatch):
    released = threading.Event()

    def resolve(*_: object, **__: object) -> socket.socket:
        released.wait(60)
        raise OSError

    monkeypatch.setattr(downloads, "_CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(socket, "create_connection", resolve)
    begin = time.monotonic()
    try:
        with pytest.raises(DataError, match=r"no connection to slow\.invalid within 0\.2 s"):
            fetch(Mirror("https://slow.invalid"), tmp_path)
    finally:
        released.set()
    assert time.monotonic() - begin < 10


@pytest.fixture
def repository(tmp_path):
    """The options of apt-get for a repository with one package, which is served over HTTP."""
    if shutil.which("apt-get") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("apt-get is not installed")
        pytest.skip("apt-get is not installed")
    folder, tree = tmp_path / "repository", tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: some-data\nVersion: 1\nArchitecture: all\nMaintainer: tests <tests@invalid>\nDescription: data\n"
    )
    content = tree / FOLDER.relative_to("/")
    content.mkdir(parents=True)
    for name, packed in PACKED.items():
        (content / name).write_bytes(packed)
    folder.mkdir()
    package = folder / "some-data_1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, package], check=True, capture_output=True)
    control = (tree / "DEBIAN" / "control").read_text()
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    (folder / "Packages").write_text(
        f"{control}Filename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n"
    )
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0),
        lambda *arguments: http.server.SimpleHTTPRequestHandler(*arguments, directory=str(folder)),
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    listing = tmp_path / "sources.list"
    listing.write_text(f"deb [trusted=yes] http://127.0.0.1:{server.server_port} ./\n")
    yield (f"-oDir::Etc::sourcelist={listing}", "-oDir::Etc::sourceparts=-", "-oAcquire::http::Proxy=DIRECT")
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_package_is_unpacked_and_not_installed(repository, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    fetch(Package("some-data", FOLDER, repository), target)
    assert written(target) == PACKED
    assert not FOLDER.exists()


def test_a_package_missing_from_the_archive_is_reported(repository, tmp_path):
    with pytest.raises(DataError, match="Unable to locate package other-data"):
        fetch(Package("other-data", FOLDER, repository), tmp_path)


def test_a_package_without_the_files_is_reported(repository, tmp_path):
    with pytest.raises(DataError, match=r"some-data_1_all\.deb has no images\.gz"):
        fetch(Package("some-data", Path("/usr/share/other"), repository), tmp_path)


def test_a_missing_apt_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="apt-get is not installed"):
        fetch(Package("some-data", FOLDER), tmp_path)
