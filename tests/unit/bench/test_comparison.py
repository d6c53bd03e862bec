"""The tables and charts of the comparison, and the requests to each server."""

import base64
import json

import numpy as np
import pytest

from bench import charts, compare, render, reporting


def figure(rate, p50=1.0, p99=2.0, failed=0):
    rates = [rate * 0.9, rate, rate * 1.1]
    return {"rates": rates, "requests_per_second": rate, "p50_ms": p50, "p99_ms": p99, "failed": failed}


@pytest.fixture
def measured():
    def server(version, *rates, failed=0):
        connections = {str(c): figure(rate, failed=failed) for c, rate in zip((16, 64), rates, strict=True)}
        return {"setting": "1 worker", "version": version, "connections": connections}

    servers = {
        "mosec": server("1.0", 900, 2000),
        "Triton": server("2.0", 1000, 1500, failed=3),
        compare.OURS: server("abc", 1100, 3000),
    }
    machine = {"processor": "p", "cores": 2, "date": "2000-01-01"}
    return {"machine": machine, "results": {"servers": servers, "missing": {"BentoML": "not installed"}}}


def test_the_table_has_the_fastest_server_first_and_lists_missing_servers(measured):
    lines = render.throughput_table(measured).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "**fashion-serve**",
        "mosec 1.0",
        "Triton 2.0",
        "BentoML",
    ]
    assert "3,000 (2.7-3.3k), 1.00 / 2.0 ms" in lines[2]
    assert "3 failed" in lines[4]
    assert "missing" in lines[5]


def test_the_ratio_is_to_the_fastest_other_server_at_that_concurrency(measured):
    assert render.ratio_to_best(measured, "16") == (1.1, "Triton")
    assert render.ratio_to_best(measured, "64") == (1.5, "mosec")


def test_charts_are_drawn_of_every_comparison(measured, tmp_path, monkeypatch):
    for title in ("mlp", "convnet", "png"):
        (tmp_path / f"peers-{title}.json").write_text(json.dumps(measured))
    monkeypatch.setattr(charts, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(reporting, "RESULTS", tmp_path)
    assert charts.main() == 0
    assert {file.name for file in (tmp_path / "images").iterdir()} == {"peers-latency.png", "peers-throughput.png"}


@pytest.mark.parametrize("name", compare.ALL)
def test_every_server_has_pinned_packages_and_three_settings_unless_it_is_an_example(name):
    peer = compare.ALL[name]
    folder = compare.environment_of(peer.package).name.removeprefix(".venv-")
    pins = (compare.PEERS / "requirements" / f"{folder}.txt").read_text().split()
    assert any(pin.startswith(f"{peer.package}==") or pin.startswith(f"{peer.package}[") for pin in pins)
    assert len(peer.settings) >= 3 or "example" in name


def test_triton_gets_binary_tensors():
    pixels = bytes(range(256)) * 3 + bytes(16)
    body, headers = compare.ALL["Triton (Python backend)"].pack(pixels, "raw")
    length = int(headers["Inference-Header-Content-Length"])
    (tensor,) = json.loads(body[:length])["inputs"]
    assert tensor["shape"] == [1, 28, 28]
    assert body[length:] == pixels
    body, headers = compare.ALL["Triton (Python backend)"].pack(b"picture", "png")
    assert body.endswith(b"\x07\x00\x00\x00picture")


def test_json_servers_get_base64():
    body, _ = compare.ALL["LitServe"].pack(b"pixels", "raw")
    assert base64.b64decode(json.loads(body)["image"]) == b"pixels"
    body, _ = compare.ALL["MLServer"].pack(b"pixels", "raw")
    assert base64.b64decode(json.loads(body)["inputs"][0]["data"][0]) == b"pixels"


def test_the_torchserve_example_gets_a_picture():
    body, headers = compare.ALL["TorchServe (MNIST example)"].pack(np.zeros(784, np.uint8).tobytes(), "raw")
    assert body.startswith(b"\x89PNG")
    assert headers == {"Content-Type": "image/png"}
