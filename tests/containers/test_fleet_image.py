"""The images of a fleet: a version that has passed its golden examples in the image, and the edge."""

from __future__ import annotations

import os
import re

import pytest
import requests

from serving.settings import ROOT
from tests.fleet import versions
from tests.support import free_ports
from tests.support.composing import IMAGE, TIMEOUT, inspect, run, wait_until


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return versions.make(tmp_path_factory.mktemp("stores"))


def build(store, version, check=True):
    """The output of the script, and the names of the images that it has tagged."""
    # With the labels of the image that exists, whose layers are then used again.
    labels = inspect(IMAGE)["Config"]["Labels"]
    variables = {
        "DEVICE": os.environ.get("FASHION_DEVICE", "cpu"),
        "FASHION_VERSION": labels["org.opencontainers.image.version"],
        "FASHION_REVISION": labels["org.opencontainers.image.revision"],
        "FASHION_MODEL_STORE": str(store),
        "VERSION": version,
    }
    output = run(str(ROOT / "docker" / "fleet_image.sh"), environment=variables, check=check)
    return output, dict(re.findall(r"^(FASHION_\w+)=(.*)$", output, re.MULTILINE))


@pytest.fixture(scope="module")
def built(stores):
    output, images = build(stores["1.1"], "1.1")
    yield output, images
    run("docker", "image", "rm", "--force", *images.values())


def test_a_version_that_passes_its_golden_examples_gets_a_tag(built):
    output, images = built
    assert output.startswith(f"accuracy: {versions.MODEL} 1.1\ngolden examples: passed in the image\n")
    assert re.fullmatch(r"fashion-serve:1\.1-[0-9a-f]{12}", images["FASHION_IMAGE"])
    assert re.fullmatch(r"fashion-serve-edge:\S+-[0-9a-f]{12}", images["FASHION_EDGE_IMAGE"])
    assert run("docker", "run", "--rm", "--entrypoint", "ls", images["FASHION_IMAGE"], "/models").split() == [
        f"{versions.MODEL}-1.1.mar",
        "index.json",
    ]


def test_a_version_that_fails_its_golden_examples_gets_no_tag(stores):
    output, images = build(stores[versions.WRONG], versions.WRONG, check=False)
    assert "error: the image does not become ready, so it has no tag" in output
    assert "golden" in output
    assert images == {}


@pytest.fixture
def edge(built, tmp_path):
    """The address of an edge that finds no replica, and the file of its certificate authority."""
    (port,) = free_ports.find(1)
    run("serving/gateway/certs.sh", str(tmp_path / "keys"), "127.0.0.1")
    pair = [(tmp_path / "keys" / name).read_text() for name in ("gateway.crt", "gateway.key")]
    certificate = tmp_path / "certificate.pem"
    certificate.write_text("".join(pair))
    # The edge runs as a user of its own.
    certificate.chmod(0o644)
    name = "fashion-serve-test-edge"
    run("docker", "rm", "--force", name)
    options = ["--read-only", "--cap-drop", "ALL", "--publish", f"127.0.0.1:{port}:8000"]
    options += ["--env", "EDGE_CANARY_PERCENT=10", "--env", "EDGE_RATE_LIMIT=1"]
    options += ["--volume", f"{certificate}:/run/secrets/certificate.pem:ro"]
    run("docker", "run", "--detach", "--name", name, *options, built[1]["FASHION_EDGE_IMAGE"])
    form = "{{.State.Health.Status}}"
    wait_until(lambda: run("docker", "inspect", name, "--format", form).strip() == "healthy", TIMEOUT, "healthy")
    yield f"https://127.0.0.1:{port}", str(tmp_path / "keys" / "ca.crt")
    run("docker", "rm", "--force", name)


def test_the_edge_refuses_more_than_the_limit_and_answers_without_replicas(edge):
    url, authority = edge
    answers = {}
    with requests.Session() as session:
        # On any machine two of these requests are less than a second apart.
        for _ in range(50):
            answer = session.post(f"{url}/predictions/blobs_mlp", json=[0.5, -1.5, 3.0, 2.0], verify=authority)
            answers[answer.status_code] = answer
            if answers.keys() == {429, 503}:
                break
    assert answers.keys() == {429, 503}
    for status, answer in answers.items():
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["status"] == status
