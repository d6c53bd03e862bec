"""The manifests of deploy/kubernetes agree with the service: ports, times, user, and the image that they run."""

from __future__ import annotations

import re

import pytest
import yaml

from serving import settings
from serving.settings import ROOT
from serving.supervisor import supervisor

FOLDER = ROOT / "deploy" / "kubernetes"
DEFAULTS = settings.read({})
# The service's stages; the edge of a Swarm has a stage before them.
_DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text().partition(" AS service\n")[2]


def in_dockerfile(pattern):
    """The first group of a pattern that the Dockerfile must match."""
    match = re.search(pattern, _DOCKERFILE)
    assert match, pattern
    return match[1]


def read(path):
    return list(yaml.safe_load_all((FOLDER / path).read_text()))


def pod_of_deployment():
    (deployment,) = read("replica/deployment.yaml")
    return deployment["spec"]["template"]["spec"]


def pod_of_kserve():
    """The pod that KServe makes: of runtime and service."""
    (runtime,) = read("overlays/kserve/servingruntime.yaml")
    (service,) = read("overlays/kserve/inferenceservice.yaml")
    return {**runtime["spec"], **service["spec"]["predictor"]}


@pytest.fixture(params=[pod_of_deployment, pod_of_kserve], ids=["deployment", "kserve"])
def pod(request):
    return request.param()


@pytest.fixture
def container(pod):
    (container,) = pod["containers"]
    return container


def variables(container):
    return {each["name"]: each["value"] for each in container["env"]}


def port_of(container, probe):
    """The number of a probe's port."""
    named = {each.get("name"): each["containerPort"] for each in container["ports"]}
    port = container[probe]["httpGet"]["port"]
    return named.get(port, port)


def test_every_variable_is_a_setting(container):
    assert set(variables(container)) <= {option.variable for _, option in settings.options()}


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_ask_the_port_without_keys_and_tls(container, probe):
    template = (ROOT / "serving/gateway/nginx/status.conf.template").read_text()
    assert port_of(container, probe) == DEFAULTS.gateway_status.number
    path = container[probe]["httpGet"]["path"]
    assert path == ("/status" if probe == "livenessProbe" else "/readyz")
    locations = re.findall(r"location (?:=|~) (\S+)", template)
    assert any(re.fullmatch(location.strip("^$"), path) for location in locations)


def test_a_start_may_take_as_long_as_the_service_allows(container):
    probe = container["startupProbe"]
    longest = DEFAULTS.start_timeout
    assert probe["periodSeconds"] * probe["failureThreshold"] > longest


def test_the_grace_period_covers_the_whole_drain(pod, container):
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    delay = float(variables(container)["FASHION_DRAIN_DELAY"])
    drain = int(seconds) + delay + supervisor._CALLERS_GRACE_S + supervisor._GRACE_S
    assert pod["terminationGracePeriodSeconds"] > drain


def test_readiness_fails_before_the_first_connection_is_closed(container):
    probe = container["readinessProbe"]
    noticed = probe["periodSeconds"] * probe["failureThreshold"]
    assert float(variables(container)["FASHION_DRAIN_DELAY"]) > noticed


def test_the_pod_has_the_privileges_of_the_composed_container(pod, container):
    user = int(in_dockerfile(r"USER (\d+):"))
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == user
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False


def test_everything_the_service_writes_is_a_volume(pod, container):
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    state = in_dockerfile(r"FASHION_RUN_DIR=(\S+)")
    assert "emptyDir" in volumes[mounts[state]]
    assert "emptyDir" in volumes[mounts["/tmp"]]


def test_the_gateway_accepts_the_mode_of_the_keys(pod, container):
    (keys,) = (each["secret"] for each in pod["volumes"] if "secret" in each)
    (mount,) = (each["mountPath"] for each in container["volumeMounts"] if each["name"] == "keys")
    # Kubernetes adds the right to read for fsGroup.
    assert keys["defaultMode"] == 0o440
    assert variables(container)["FASHION_API_KEYS"] == f"{mount}/api_keys"
    assert "optional" not in keys


def test_a_service_name_cannot_set_a_variable(pod):
    assert pod["enableServiceLinks"] is False


def test_only_the_public_ports_leave_the_pod():
    (container,) = pod_of_deployment()["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    expected = {"http": DEFAULTS.gateway, "grpc": DEFAULTS.grpc, "status": DEFAULTS.gateway_status}
    assert ports == {name: port.number for name, port in expected.items()}
    assert set(map(str, ports.values())) == set(in_dockerfile(r"EXPOSE (.*)").split())
    callers, replicas = read("base/services.yaml")
    # Callers do not reach the status port, which has no keys.
    assert [port["targetPort"] for port in callers["spec"]["ports"]] == ["http", "grpc"]
    assert [port["port"] for port in callers["spec"]["ports"]] == [ports["http"], ports["grpc"]]
    assert replicas["spec"]["clusterIP"] == "None"
    assert {port["targetPort"] for port in replicas["spec"]["ports"]} == set(ports)


def test_the_network_policy_opens_the_status_port_to_prometheus_only():
    (policy,) = read("base/networkpolicy.yaml")
    callers, prometheus = policy["spec"]["ingress"]
    assert [port["port"] for port in callers["ports"]] == ["http", "grpc"]
    assert "from" not in callers
    assert [port["port"] for port in prometheus["ports"]] == ["status"]
    assert prometheus["from"]
    assert policy["spec"]["egress"] == []
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_updates_start_first_and_replicas_are_left_to_the_autoscaler():
    (deployment,) = read("replica/deployment.yaml")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "replicas" not in deployment["spec"]
    (autoscaler,) = read("base/autoscaler.yaml")
    assert autoscaler["spec"]["minReplicas"] == 3
    assert [metric["type"] for metric in autoscaler["spec"]["metrics"]] == ["Resource", "Pods"]


def test_a_lost_node_is_replaced_soon_and_replicas_are_spread():
    pod = pod_of_deployment()
    keys = {each["key"]: each for each in pod["tolerations"]}
    for name in ("unreachable", "not-ready"):
        toleration = keys[f"node.kubernetes.io/{name}"]
        assert toleration["effect"] == "NoExecute"
        assert toleration["tolerationSeconds"] <= 10
    # With a further constraint, the scheduler would ignore both on nodes without the label of a zone.
    assert [each["topologyKey"] for each in pod["topologySpreadConstraints"]] == ["kubernetes.io/hostname"]
    (term,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"


def test_selectors_of_every_object_match_the_pods():
    (deployment,) = read("replica/deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    (budget,) = read("base/disruptionbudget.yaml")
    (policy,) = read("base/networkpolicy.yaml")
    selectors = [service["spec"]["selector"] for service in read("base/services.yaml")]
    selectors += [budget["spec"]["selector"]["matchLabels"], policy["spec"]["podSelector"]["matchLabels"]]
    # Replicas of both tracks, so without the label of the track.
    assert all(selector.items() < labels.items() and "fashion-serve/track" not in selector for selector in selectors)


def test_the_canary_is_a_second_deployment_with_a_share():
    (canary,) = read("overlays/canary/canary/kustomization.yaml")
    (labels,) = canary["labels"]
    assert labels == {"pairs": {"fashion-serve/track": "canary"}, "includeSelectors": True}
    assert canary["resources"] == ["../../../replica"]
    stable, changed = read("overlays/canary/services.yaml")
    names = {
        service["metadata"]["name"]: service["spec"]["selector"]["fashion-serve/track"] for service in (stable, changed)
    }
    assert names == {"fashion-serve-stable": "stable", "fashion-serve-canary": "canary"}
    for route in read("overlays/canary/routes.yaml"):
        (rule,) = route["spec"]["rules"]
        backends = rule["backendRefs"]
        assert {backend["name"] for backend in backends} == set(names)
        assert sum(backend["weight"] for backend in backends) == 100


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "canary/canary"])
def test_a_version_is_an_image_by_digest(overlay):
    (kustomization,) = read(f"overlays/{overlay}/kustomization.yaml")
    (image,) = kustomization["images"]
    assert image["name"] == pod_of_deployment()["containers"][0]["image"]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"])
    assert "newTag" not in image


def test_kserve_finds_its_container_port_and_models():
    (container,) = pod_of_kserve()["containers"]
    assert container["name"] == "kserve-container"
    # KServe sends requests to the first port.
    assert container["ports"][0]["containerPort"] == DEFAULTS.gateway.number
    assert variables(container)["FASHION_MODEL_STORE"] == "/mnt/models"
    (runtime,) = read("overlays/kserve/servingruntime.yaml")
    (service,) = read("overlays/kserve/inferenceservice.yaml")
    assert runtime["spec"]["protocolVersions"] == ["v1", "v2"]
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    formats = [each["name"] for each in runtime["spec"]["supportedModelFormats"]]
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] in formats
