"""The files of deploy/swarm agree with the service, with each other, and with the image."""

from __future__ import annotations

import inspect
import re

import pytest
import yaml
from fashion_client import _base

from serving import settings
from serving.settings import ROOT
from serving.supervisor import supervisor

FOLDER = ROOT / "deploy" / "swarm"
DEFAULTS = settings.read({})
STACK = yaml.safe_load((FOLDER / "stack.yml").read_text())
SERVICES = STACK["services"]
EDGE = (FOLDER / "haproxy.cfg").read_text()
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
EXAMPLE = dict(re.findall(r"^(FASHION_[A-Z_]+)=(.*)$", (FOLDER / "fleet.env.example").read_text(), re.MULTILINE))


@pytest.fixture(params=["replica", "canary"])
def replica(request):
    return SERVICES[request.param]


def seconds(text):
    return float(text.removesuffix("s"))


def in_edge(pattern):
    """The groups of a pattern that matches in the edge's configuration."""
    match = re.search(pattern, EDGE)
    assert match, pattern
    return match[1]


def test_replica_and_canary_differ_in_image_and_number_only():
    replica, canary = ({**SERVICES[name], "deploy": dict(SERVICES[name]["deploy"])} for name in ("replica", "canary"))
    for service in (replica, canary):
        assert service.pop("image").startswith("${FASHION_")
        assert service["deploy"].pop("replicas").startswith("${FASHION_")
    assert replica == canary


def test_every_variable_of_a_replica_is_a_setting(replica):
    assert set(replica["environment"]) <= {option.variable for _, option in settings.options()}
    assert settings.read(replica["environment"]).fleet


def test_the_example_has_every_variable_of_the_stack_with_its_default():
    used = dict(re.findall(r"\$\{(FASHION_[A-Z_]+):[-?]([^}]*)\}", (FOLDER / "stack.yml").read_text()))
    assert used.keys() == EXAMPLE.keys()
    assert {name: value for name, value in used.items() if " " not in value}.items() <= EXAMPLE.items()


def test_a_version_is_an_image_by_digest():
    for name in ("FASHION_IMAGE", "FASHION_EDGE_IMAGE"):
        assert re.fullmatch(r"registry\.example/[a-z-]+@sha256:[0-9a-f]{64}", EXAMPLE[name])


def test_a_replica_keeps_nothing_and_writes_only_to_new_volumes(replica):
    assert replica["read_only"] is True
    assert replica["volumes"] == [{"type": "volume", "target": path} for path in ("/state", "/tmp")]
    assert re.search(r"FASHION_RUN_DIR=/state\b", DOCKERFILE)


def test_a_replica_has_the_privileges_and_limits_of_the_composed_container(replica):
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["fashion-serve"]
    for key in ("read_only", "cap_drop", "ulimits", "stop_grace_period"):
        assert replica[key] == composed[key]
    assert replica["deploy"]["resources"]["limits"]["pids"] == composed["deploy"]["resources"]["limits"]["pids"]


def test_only_the_edge_is_published_and_a_replica_has_no_way_out(replica):
    assert "ports" not in replica
    assert replica["networks"] == ["inside"]
    assert STACK["networks"]["inside"]["internal"] is True
    ports = {port["target"]: port["published"] for port in SERVICES["edge"]["ports"]}
    assert ports == {DEFAULTS.gateway.number: 8000, DEFAULTS.grpc.number: 8001}
    # Swarm's own mesh would hide the callers' addresses.
    assert {port["mode"] for port in SERVICES["edge"]["ports"]} == {"host"}


def test_the_gateway_accepts_the_owner_and_mode_of_the_keys(replica):
    (secret,) = replica["secrets"]
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user
    assert (secret["uid"], secret["gid"], secret["mode"]) == (user[1], user[2], 0o400)
    assert replica["environment"]["FASHION_API_KEYS"] == f"/run/secrets/{secret['target']}"


def test_new_replicas_start_first_and_bad_ones_are_rolled_back(replica):
    update = replica["deploy"]["update_config"]
    assert (update["order"], update["failure_action"], update["parallelism"]) == ("start-first", "rollback", 1)
    assert replica["deploy"]["rollback_config"]["order"] == "start-first"


def test_the_grace_period_covers_the_whole_drain(replica):
    delay = float(replica["environment"]["FASHION_DRAIN_DELAY"])
    drain = delay + supervisor._CALLERS_GRACE_S + supervisor._GRACE_S
    assert seconds(replica["stop_grace_period"]) > drain


def test_the_edge_notices_a_drain_before_the_first_connection_is_closed(replica):
    checks = re.search(r"inter (\d+)s fastinter (\d+)ms fall (\d+)", EDGE)
    assert checks
    noticed = int(checks[1]) + (int(checks[3]) - 1) * int(checks[2]) / 1000
    delay = float(replica["environment"]["FASHION_DRAIN_DELAY"])
    assert delay > noticed
    assert delay > int(in_edge(r"hold obsolete (\d+)s")) + int(in_edge(r"timeout resolve (\d+)s"))


def test_the_edge_answers_before_a_caller_gives_up():
    gateway = (ROOT / "serving/gateway/nginx/upstreams.conf.template").read_text()
    read_timeout = re.search(r"proxy_read_timeout (\d+)s", gateway)
    assert read_timeout
    timeout = int(in_edge(r"timeout server (\d+)s\n.*\n  option http-buffer-request"))
    assert int(read_timeout[1]) <= timeout < inspect.signature(_base.BaseClient).parameters["timeout"].default


def test_the_edge_ends_within_its_grace_period():
    assert int(in_edge(r"hard-stop-after (\d+)s")) < seconds(SERVICES["edge"]["stop_grace_period"])


def test_the_edge_sends_to_the_ports_of_the_replicas_and_checks_the_status_port():
    sent = re.findall(r"server-template \w+ 1-\d+ (\S+)", EDGE)
    ports = (DEFAULTS.gateway.number, DEFAULTS.grpc.number)
    assert sorted(sent) == sorted(f"tasks.{name}:{port}" for name in ("replica", "canary") for port in ports)
    assert int(in_edge(r"http-check connect port (\d+)")) == DEFAULTS.gateway_status.number
    assert in_edge(r"http-check send meth GET uri (\S+)") == "/readyz"


def test_the_edges_variables_are_those_that_its_configuration_reads():
    assert SERVICES["edge"]["environment"].keys() == set(re.findall(r"\$(EDGE_[A-Z_]+)", EDGE))


def test_the_edges_buffers_fit_into_its_memory():
    assert SERVICES["edge"]["deploy"]["resources"]["limits"]["memory"] == "1G"
    buffers, tls = 2 * int(in_edge(r"tune.bufsize (\d+)")), 2**16
    assert int(in_edge(r"maxconn (\d+)\n")) * (buffers + tls) < 0.75 * 2**30


def test_the_edges_threads_and_files_are_those_of_the_stack():
    assert in_edge(r"nbthread (\d+)") == SERVICES["edge"]["deploy"]["resources"]["limits"]["cpus"]
    (secret,) = SERVICES["edge"]["secrets"]
    assert set(re.findall(r"ssl crt (\S+)", EDGE)) == {f"/run/secrets/{secret['target']}"}


def test_the_edges_errors_are_problems_with_the_clients_retries():
    errors = re.findall(r"http-error status (\d+) (.*) string '(.*)'", EDGE)
    assert {int(status) for status, _, _ in errors} == {400, 408, 429, 502, 503, 504}
    for status, headers, body in errors:
        problem = yaml.safe_load(body)
        assert problem.keys() == {"type", "title", "status", "detail"}
        # 502 is sent as 503.
        assert problem["status"] == (503 if status == "502" else int(status))
        assert ("Retry-After" in headers) == (problem["status"] in (429, 503))
    assert "http-after-response set-status 503 if { status 502 }" in EDGE


def test_prometheus_has_the_jobs_and_pages_of_the_composed_one():
    swarm, composed = (
        {job["job_name"]: job for job in yaml.safe_load(path.read_text())["scrape_configs"]}
        for path in (FOLDER / "prometheus.yml", ROOT / "monitoring" / "prometheus.yml")
    )
    assert swarm.keys() == composed.keys() | {"edge"}
    for name, job in composed.items():
        assert swarm[name].get("metrics_path") == job.get("metrics_path")
        (found,) = swarm[name]["dns_sd_configs"]
        assert found["names"] == ["tasks.replica", "tasks.canary"]
        assert job["static_configs"] == [{"targets": [f"fashion-serve:{found['port']}"]}]
    ours, theirs = (
        yaml.safe_load(path.read_text())["services"]["prometheus"]
        for path in (FOLDER / "monitoring.yml", ROOT / "docker-compose.yml")
    )
    assert (ours["image"], ours["command"]) == (theirs["image"], theirs["command"])
