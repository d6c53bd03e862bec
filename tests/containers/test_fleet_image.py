"""The images of a fleet: a version that has passed its golden examples in the image, and the edge before replicas."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from types import SimpleNamespace

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


def await_healthy(container):
    form = "{{.State.Health.Status}}"
    wait_until(lambda: run("docker", "inspect", container, "--format", form).strip() == "healthy", TIMEOUT, "healthy")


@dataclasses.dataclass(frozen=True)
class Edge:
    """The ports of an edge, and the file of its certificate authority."""

    http: int
    grpc: int
    authority: str


@pytest.fixture
def place(built, tmp_path):
    """Starts containers in a network of their own: replicas, and an edge."""
    _, images = built
    containers: list[str] = []
    network = f"fashion-serve-test-{tmp_path.name}"
    run("docker", "network", "create", network)

    def start(image, *options):
        name = f"{network}-{len(containers)}"
        containers.append(name)
        command = ["docker", "run", "--detach", "--name", name, "--network", network, "--cap-drop", "ALL", *options]
        run(*command, images[image])
        return name

    def start_replicas(count):
        for name in [start("FASHION_IMAGE", "--network-alias", "tasks.replica") for _ in range(count)]:
            await_healthy(name)

    def start_edge(limit):
        http, grpc = free_ports.find(2)
        edge = Edge(http, grpc, str(tmp_path / "keys" / "ca.crt"))
        run("serving/gateway/certs.sh", str(tmp_path / "keys"), "127.0.0.1")
        pair = [(tmp_path / "keys" / name).read_text() for name in ("gateway.crt", "gateway.key")]
        certificate = tmp_path / "certificate.pem"
        certificate.write_text("".join(pair))
        # The edge runs as a user of its own.
        certificate.chmod(0o644)
        options = ["--read-only", "--volume", f"{certificate}:/run/secrets/certificate.pem:ro"]
        options += ["--env", "EDGE_CANARY_PERCENT=10", "--env", f"EDGE_RATE_LIMIT={limit}"]
        options += ["--publish", f"127.0.0.1:{edge.http}:8000", "--publish", f"127.0.0.1:{edge.grpc}:8001"]
        await_healthy(start("FASHION_EDGE_IMAGE", *options))
        return edge

    yield SimpleNamespace(start_replicas=start_replicas, start_edge=start_edge)
    run("docker", "rm", "--force", "--volumes", *containers)
    run("docker", "network", "rm", network)


def predict(session, edge):
    url = f"https://127.0.0.1:{edge.http}/predictions/{versions.MODEL}"
    return session.post(url, json=[0.5, -1.5, 3.0, 2.0], verify=edge.authority)


def test_the_edge_refuses_more_than_the_limit_and_answers_without_replicas(place):
    edge = place.start_edge(limit=1)
    answers = {}
    with requests.Session() as session:
        # On any machine two of these requests are less than a second apart.
        for _ in range(50):
            answer = predict(session, edge)
            answers[answer.status_code] = answer
            if answers.keys() == {429, 503}:
                break
    assert answers.keys() == {429, 503}
    for status, answer in answers.items():
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["status"] == status


def test_the_edge_balances_requests_and_grpc_calls_over_the_replicas(place):
    place.start_replicas(2)
    edge = place.start_edge(limit=100_000)
    with requests.Session() as session:

        def both():
            answers = [predict(session, edge) for _ in range(10)]
            return {answer.headers.get("X-Replica") for answer in answers if answer.ok} == {"r1", "r2"}

        wait_until(both, TIMEOUT, "both replicas answer")
        answers = [predict(session, edge) for _ in range(40)]
    assert {answer.headers["X-Model-Version"] for answer in answers} == {"1.1"}
    program = [sys.executable, "-m", "tests.fleet.swarm.grpc_calls", f"127.0.0.1:{edge.grpc}", edge.authority, "none"]
    counts = json.loads(run(*program, versions.MODEL, "40"))
    assert counts.keys() == {"r1", "r2"}
    assert min(counts.values()) >= 10
