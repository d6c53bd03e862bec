"""What the images and the files that describe them hold, and what they do not."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from composing import GATEWAY, TORCHSERVE, inspect, run, wait_until

from serving.settings import ROOT

DOCKERFILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docker").glob("*.Dockerfile"))
LIMITS = {TORCHSERVE: 1.2e9, GATEWAY: 0.2e9}


def sh(image: str, script: str) -> str:
    # As root, who may look everywhere.
    return run("docker", "run", "--rm", "--user=0", "--network=none", "--entrypoint", "sh", image, "-c", script)


def config(*files: str, **environment: str) -> dict:
    named = [part for file in files for part in ("--file", file)]
    return json.loads(run("docker", "compose", *named, "config", "--format", "json", environment=environment))


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_hadolint_finds_nothing(dockerfile):
    assert run(str(Path(sys.executable).with_name("hadolint")), dockerfile) == ""


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_compose_takes_the_files_with_keys_and_tls(device):
    chosen = {"FASHION_DEVICE": device, "FASHION_API_KEYS": "/k", "FASHION_CERTIFICATES": "/c"}
    assert run("docker/compose", "--profile", "monitoring", "config", "--quiet", environment=chosen) == ""


@pytest.mark.parametrize("image", LIMITS)
def test_the_image_is_small(image):
    size = inspect(image)["Size"]
    print(f"{image}: {size / 1e9:.2f} GB")
    assert size < LIMITS[image]


@pytest.mark.parametrize("image", LIMITS)
def test_the_image_is_labelled_and_has_a_user_of_fixed_number(image):
    configured = inspect(image)["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in configured["Labels"].items()}
    assert labels.keys() >= {"title", "description", "version", "revision", "base.name"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["version"])
    assert configured["User"] == "10001:10001"
    assert configured["Healthcheck"]["Test"][0] == "CMD"


@pytest.mark.parametrize("image", LIMITS)
def test_the_image_has_no_compiler_no_pip_and_no_tests(image):
    script = (
        "for program in cc gcc g++ ld make pip pip3 git; do command -v $program; done;"
        "find / -xdev \\( -path '*/pip/__init__.py' -o -path '*/ensurepip/_bundled' \\);"
        "find / -xdev \\( -name '*.whl' -o -name conftest.py -o -path '*/torch/test' -o -path '*/numpy/tests'"
        " -o -path '*/.cache/pip' -o -name '*.deb' -o -path /app/tests \\) -not -path '/proc/*'"
    )
    assert sh(image, script) == ""


def test_the_entrypoint_is_an_init():
    assert inspect(TORCHSERVE)["Config"]["Entrypoint"] == ["tini", "--"]


def test_the_service_image_holds_no_archive():
    assert sh(TORCHSERVE, "find / -xdev -name '*.mar'") == ""


def test_the_gpu_overlay_field_by_field():
    plain = config("docker-compose.yml", FASHION_DEVICE="gpu")["services"]
    gpu = config("docker-compose.yml", "docker-compose.gpu.yml", FASHION_DEVICE="gpu")["services"]
    assert {name: gpu[name] for name in gpu if name != "torchserve"} == {
        name: plain[name] for name in plain if name != "torchserve"
    }
    changed = {key for key in gpu["torchserve"] if gpu["torchserve"][key] != plain["torchserve"].get(key)}
    assert changed == {"environment", "deploy"}
    added = gpu["torchserve"]["environment"].items() - plain["torchserve"]["environment"].items()
    assert dict(added) == {
        "FASHION_DEVICE_TYPE": "gpu",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }
    resources = gpu["torchserve"]["deploy"]["resources"]
    (devices,) = resources["reservations"]["devices"]
    assert (devices["driver"], devices["capabilities"], devices["count"]) == ("nvidia", ["gpu"], -1)
    assert int(resources["limits"]["memory"]) == 8 * 1024**3
    assert {key: value for key, value in resources["limits"].items() if key != "memory"} == {
        key: value for key, value in plain["torchserve"]["deploy"]["resources"]["limits"].items() if key != "memory"
    }
    assert gpu["torchserve"]["image"] == "fashion-serve-torchserve:gpu"
    assert gpu["torchserve"]["build"]["additional_contexts"]["wheelhouse"].endswith("wheelhouse/gpu")


def test_every_setting_of_the_files_is_explained():
    files = [*ROOT.glob("docker-compose*.yml"), *(ROOT / "docker").glob("compose*"), ROOT / "docker" / "device"]
    used = set().union(*(re.findall(r"\bFASHION_[A-Z_]+", path.read_text()) for path in files))
    # What the files themselves set, for a container or for compose.
    set_here = {
        *("FASHION_TORCHSERVE_HOST", "FASHION_FRONTDOOR_HOST", "FASHION_GRPC_HOST", "FASHION_GATEWAY_HOST"),
        *("FASHION_VERSION", "FASHION_REVISION", "FASHION_TARGET", "FASHION_SUFFIX", "FASHION_DEVICE_TYPE"),
    }
    explained = set(re.findall(r"^#(FASHION_[A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert used - set_here == explained


def test_the_defaults_of_the_example_are_those_of_the_files():
    text = (ROOT / "docker-compose.yml").read_text()
    defaults = dict(re.findall(r"\$\{(FASHION_[A-Z_]+):-([^}]*)\}", text))
    example = dict(re.findall(r"^#(FASHION_[A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert {name: example[name] for name in defaults.keys() & example.keys()} == {
        name: defaults[name] for name in defaults.keys() & example.keys()
    }


def test_monitoring_comes_with_its_profile_alone():
    every = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {name for name in every if every[name].get("profiles") == ["monitoring"]} == {"prometheus", "grafana"}
    assert config("docker-compose.yml")["services"].keys() == every.keys() - {"prometheus", "grafana"}
    # A tag that moves would be another image tomorrow.
    assert all(re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", every[name]["image"]) for name in ("prometheus", "grafana"))
    for name in ("prometheus", "grafana"):
        for mount in every[name]["volumes"]:
            source = mount.partition(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists(), source


def test_a_baked_image_serves_by_itself():
    """Built as `make image BAKE=1` builds it, with neither model store nor network."""
    baked = {"FASHION_TARGET": "baked", "FASHION_SUFFIX": "-baked"}
    run("docker/compose", "build", "--quiet", "torchserve", environment=baked)
    image = f"{TORCHSERVE}-baked"
    stored = {path.name for path in (ROOT / "model_store").iterdir() if path.suffix in (".mar", ".json")}
    assert set(sh(image, "ls /models").split()) == stored
    name = run(
        *("docker", "run", "--detach", "--network=none", "--read-only"),
        *("--tmpfs", "/tmp:exec", "--tmpfs", "/state:uid=10001", image),
    ).strip()
    try:
        wait_until(lambda: inspect(name)["State"]["Health"]["Status"] == "healthy", 60, "the container is healthy")
    finally:
        run("docker", "rm", "--force", name)
