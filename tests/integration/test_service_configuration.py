"""The settings of ``config.properties`` and ``log4j2.xml``, tested on a running service."""

from __future__ import annotations

import shutil
import socket
import struct
import zipfile

import psutil
import pytest
import requests

from handlers import limits
from serving.settings import HOST
from serving.torchserve.management import Management
from tests.support import packing

VECTOR = [1.0, 2.0, 3.0]


def test_all_ports_listen_on_loopback_only(tiny_service):
    addresses = {
        connection.laddr
        for process in tiny_service.processes()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.ip.removeprefix("::ffff:") for address in addresses} == {HOST}
    assert {port.number for port in tiny_service.settings.ports} >= {address.port for address in addresses}


@pytest.mark.parametrize(
    "url",
    [
        "http://{outside}/other.mar",
        "https://{outside}/other.mar",
        "HTTP://{outside}/other.mar",
        "file://{folder}/other.mar",
        "FILE://{folder}/other.mar",
        "file:{folder}/other.mar",
        "{folder}/other.mar",
        "file:///etc/passwd",
        "/etc/passwd",
        "../other.mar",
        "../../../../../../etc/passwd",
        "..%2f..%2f{folder}/other.mar",
        "../../{folder}/other.mar",
        "s3://bucket/other.mar",
        "ftp://{outside}/other.mar",
    ],
)
def test_archives_are_loaded_only_from_the_model_store(tiny_service, tmp_path, url):
    packing.pack(tmp_path, "other")
    with socket.socket() as outside:
        outside.bind((HOST, 0))
        outside.listen()
        outside.settimeout(0)
        location = url.format(folder=tmp_path, outside=f"{HOST}:{outside.getsockname()[1]}")
        answer = requests.post(f"{tiny_service.management}/models", params={"url": location}, timeout=30)
        assert 400 <= answer.status_code < 500, answer.text
        with pytest.raises(BlockingIOError):
            outside.accept()
    assert Management(tiny_service.management).names() == ["tiny"]
    assert not (tiny_service.settings.model_store / "other.mar").exists()


def test_workflows_are_not_downloaded(tiny_service):
    with socket.socket() as outside:
        outside.bind((HOST, 0))
        outside.listen()
        outside.settimeout(0)
        url = f"http://{HOST}:{outside.getsockname()[1]}/flow.war"
        answer = requests.post(f"{tiny_service.management}/workflows", params={"url": url}, timeout=30)
        assert 400 <= answer.status_code < 500, answer.text
        with pytest.raises(BlockingIOError):
            outside.accept()


def test_link_out_of_the_model_store_is_not_read(tiny_service):
    link = tiny_service.settings.model_store / "link.mar"
    link.symlink_to("/etc/passwd")
    try:
        answer = requests.post(f"{tiny_service.management}/models", params={"url": link.name}, timeout=30)
        assert answer.status_code >= 400
        assert "root:" not in answer.text
        assert Management(tiny_service.management).names() == ["tiny"]
        # deploy refuses it, because the index does not list it.
        assert tiny_service.run("deploy", "link", "1.0").returncode == 1
    finally:
        link.unlink()


def test_folder_outside_the_model_store_can_be_registered(tiny_service, tmp_path):
    """A gap in TorchServe that no setting closes: clients of the management API can load any folder of the machine."""
    with zipfile.ZipFile(packing.pack(tmp_path, "outside")) as archive:
        archive.extractall(tmp_path / "unpacked")
    parameters = {"url": str(tmp_path / "unpacked")}
    answer = requests.post(f"{tiny_service.management}/models", params=parameters, timeout=60)
    try:
        assert answer.status_code == 200
    finally:
        requests.delete(f"{tiny_service.management}/models/outside", timeout=60)
    # So the management API listens on loopback only, and can require tokens (test_tokens.py).


def test_archive_of_the_model_store_can_be_registered_by_name(tiny_service, tmp_path, monkeypatch):
    shutil.move(packing.pack(tmp_path, "second"), tiny_service.settings.model_store)
    api = f"{tiny_service.management}/models"
    try:
        parameters = {"url": "second.mar", "initial_workers": "1", "synchronous": "true"}
        assert requests.post(api, params=parameters, timeout=60).status_code == 200
        answer = requests.post(f"{tiny_service.inference}/predictions/second", json=VECTOR, timeout=10)
        assert answer.status_code == 200
        monkeypatch.setattr("serving.torchserve.management._PAGE_SIZE", "1")
        assert Management(tiny_service.management).names() == ["second", "tiny"]
        assert all(model.ready for model in Management(tiny_service.management).models())
    finally:
        requests.delete(f"{api}/second", timeout=60)
        archive = tiny_service.settings.model_store / "second.mar"
        # Unregistering must not delete the archive.
        archive.unlink()


def test_too_large_body_is_refused_before_it_is_sent(tiny_service):
    head = (
        f"POST /predictions/tiny HTTP/1.1\r\nHost: {HOST}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {limits.REQUEST_BYTES + 1}\r\n\r\n"
    )
    with socket.create_connection((HOST, tiny_service.settings.inference.number), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 413")


def test_largest_body_reaches_the_handler(tiny_service):
    # Too many examples for one request, an error that only the handler can return.
    body = struct.pack("<f", 0.5) * (limits.REQUEST_BYTES // 4)
    answer = requests.post(
        f"{tiny_service.inference}/predictions/tiny",
        data=body[: len(body) // 12 * 12],
        headers={"Content-Type": "application/octet-stream"},
        timeout=60,
    )
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_the_handler_answers_invalid_json(tiny_service):
    answer = requests.post(
        f"{tiny_service.inference}/predictions/tiny",
        data=b"[1, 2",
        headers={"Content-Type": "application/json"},
        timeout=10,
    )
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_good_requests_leave_no_line_in_any_log(tiny_service):
    def sizes():
        return {path.name: path.stat().st_size for path in tiny_service.settings.logs.iterdir()}

    before = sizes()
    for _ in range(20):
        answer = requests.post(f"{tiny_service.inference}/predictions/tiny", json=VECTOR, timeout=10)
        assert answer.status_code == 200
    assert sizes() == before


def test_metrics_are_scraped(tiny_service):
    requests.post(f"{tiny_service.inference}/predictions/tiny", json=VECTOR, timeout=10)
    answer = requests.get(f"{tiny_service.metrics}/metrics", timeout=10)
    assert "QueueTime_count" in answer.text
