"""The contents of the image, and of the Compose files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from serving import VERSION, settings
from serving.settings import ROOT
from tests.support.composing import IMAGE, inspect, run, wait_until

MAX_IMAGE_BYTES = 1.25e9


def sh(script: str, image: str = IMAGE) -> str:
    # As root, who can read every folder.
    return run("docker", "run", "--rm", "--user=0", "--network=none", "--entrypoint", "sh", image, "-c", script)


def config(*files: str, **environment: str) -> dict[str, Any]:
    options = [part for file in files for part in ("--file", file)]
    output = run("docker", "compose", *options, "config", "--format", "json", environment=environment)
    document: dict[str, Any] = json.loads(output)
    return document


def test_hadolint_finds_nothing():
    assert run(str(Path(sys.executable).with_name("hadolint")), "docker/Dockerfile") == ""


def test_keys_and_certificates_are_secrets_and_empty_by_default():
    variables = ("FASHION_API_KEYS", "FASHION_CERTIFICATES", "FASHION_STORE_KEY")
    unset = dict.fromkeys(variables, "")

    def secrets(**settings: str) -> dict[str, str]:
        return {name: secret["file"] for name, secret in config("docker-compose.yml", **settings)["secrets"].items()}

    plain = config("docker-compose.yml", **unset)["services"]["fashion-serve"]
    assert {name: plain["environment"][name] for name in variables} == unset
    names = ("api_keys", "gateway.crt", "gateway.key", "store_key")
    assert secrets(**unset) == dict.fromkeys(names, "/dev/null")
    chosen = {"FASHION_API_KEYS": "/k/keys", "FASHION_CERTIFICATES": "./c", "FASHION_STORE_KEY": "/k/store.pub"}
    files = ("/k/keys", f"{ROOT}/c/gateway.crt", f"{ROOT}/c/gateway.key", "/k/store.pub")
    assert secrets(**chosen) == dict(zip(names, files, strict=True))


def test_the_image_is_small():
    size = inspect(IMAGE)["Size"]
    print(f"{size / 1e9:.2f} GB")
    assert size < MAX_IMAGE_BYTES


def test_the_image_has_labels_and_a_user_with_a_fixed_uid():
    configured = inspect(IMAGE)["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in configured["Labels"].items()}
    assert labels.keys() >= {"title", "description", "version", "revision", "base.name"}
    assert labels["version"] == VERSION
    assert configured["User"] == "10001:10001"
    assert configured["Healthcheck"]["Test"][0] == "CMD"
    assert configured["Entrypoint"] == ["tini", "--"]


def test_the_image_has_no_compiler_no_pip_and_no_tests():
    script = (
        "for program in cc gcc g++ ld make pip pip3 git; do command -v $program; done;"
        "find / -xdev \\( -path '*/pip/__init__.py' -o -path '*/ensurepip/_bundled' \\);"
        "find / -xdev \\( -name '*.whl' -o -name conftest.py -o -path '*/torch/test' -o -path '*/numpy/tests'"
        " -o -path '*/.cache/pip' -o -name '*.deb' -o -path /app/tests -o -name '*.mar' \\) -not -path '/proc/*'"
    )
    assert sh(script) == ""


def test_the_gpu_file_changes_only_environment_and_resources():
    plain = config("docker-compose.yml", FASHION_DEVICE="gpu")["services"]
    gpu = config("docker-compose.yml", "docker-compose.gpu.yml", FASHION_DEVICE="gpu")["services"]
    assert {name: gpu[name] for name in gpu if name != "fashion-serve"} == {
        name: plain[name] for name in plain if name != "fashion-serve"
    }
    changed = {key for key in gpu["fashion-serve"] if gpu["fashion-serve"][key] != plain["fashion-serve"].get(key)}
    assert changed == {"environment", "deploy"}
    added = gpu["fashion-serve"]["environment"].items() - plain["fashion-serve"]["environment"].items()
    assert dict(added) == {
        "FASHION_DEVICE_TYPE": "gpu",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }
    resources = gpu["fashion-serve"]["deploy"]["resources"]
    (devices,) = resources["reservations"]["devices"]
    assert (devices["driver"], devices["capabilities"], devices["count"]) == ("nvidia", ["gpu"], -1)
    assert int(resources["limits"]["memory"]) == 8 * 1024**3
    assert {key: value for key, value in resources["limits"].items() if key != "memory"} == {
        key: value for key, value in plain["fashion-serve"]["deploy"]["resources"]["limits"].items() if key != "memory"
    }
    assert gpu["fashion-serve"]["image"] == "fashion-serve:gpu"
    assert gpu["fashion-serve"]["build"]["additional_contexts"]["wheelhouse"].endswith("wheelhouse/gpu")


FILES = "".join(path.read_text() for path in ROOT.glob("docker-compose*.yml"))
EXAMPLE = dict(re.findall(r"^#(FASHION_[A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))


def test_every_setting_of_the_files_is_explained():
    # Set by the Makefile for a build, or by the files for the container.
    inner = {"FASHION_VERSION", "FASHION_REVISION", "FASHION_SUFFIX", "FASHION_DEVICE_TYPE"}
    used = set(re.findall(r"\bFASHION_[A-Z_]+", FILES)) - inner
    read = {option.variable for _, option in settings.options()}
    assert used <= EXAMPLE.keys()
    assert EXAMPLE.keys() - used <= read


def test_the_examples_defaults_are_those_of_the_files():
    defaults = set(re.findall(r"\$\{(FASHION_[A-Z_]+):-([^}]*)\}", FILES))
    shown = {(name, value) for name, value in EXAMPLE.items() if value}
    assert len(shown) > 5
    assert shown <= defaults


def test_monitoring_runs_only_with_its_profile():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {name for name in services if services[name].get("profiles") == ["monitoring"]} == {"prometheus", "grafana"}
    assert config("docker-compose.yml")["services"].keys() == services.keys() - {"prometheus", "grafana"}
    # Fixed versions, because a moving tag would change the image.
    assert all(re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", services[name]["image"]) for name in ("prometheus", "grafana"))
    for name in ("prometheus", "grafana"):
        for mount in services[name]["volumes"]:
            source = mount.partition(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists(), source


def test_a_baked_image_serves_without_a_model_store_or_network():
    # As `make image BAKE=1` builds it.
    run("docker", "compose", "build", "--quiet", environment={"FASHION_SUFFIX": "-baked"})
    image = f"{IMAGE}-baked"
    stored = {path.name for path in (ROOT / "model_store").iterdir() if path.suffix in (".mar", ".json")}
    assert set(sh("ls /models", image).split()) == stored
    name = run(
        *("docker", "run", "--detach", "--network=none", "--read-only"),
        *("--tmpfs", "/tmp:exec", "--tmpfs", "/state:uid=10001", image),
    ).strip()
    try:
        wait_until(lambda: inspect(name)["State"]["Health"]["Status"] == "healthy", 60, "the container is healthy")
    finally:
        run("docker", "rm", "--force", name)
