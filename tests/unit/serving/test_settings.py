"""The settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers import limits
from handlers.metrics import recorder, traces
from handlers.transport import request_patterns
from serving import settings
from serving.errors import SettingError
from serving.settings import ROOT
from serving.sidecars import torchserve
from serving.torchserve import jvm


def _properties() -> dict[str, str]:
    lines = [line for line in jvm.CONFIG.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_defaults_are_the_documented_ports():
    numbers = {port.name: port.number for port in settings.read({}).ports}
    assert numbers == {
        "gateway": 8000,
        "gRPC": 8001,
        "gRPC bridge": 8004,
        "front door": 8002,
        "gateway status": 8003,
        "inference": 8080,
        "management": 8081,
        "metrics": 8082,
        "TorchServe gRPC": 7070,
        "TorchServe gRPC management": 7071,
    }


def test_defaults_are_those_of_config_properties():
    defaults, written = settings.read({}), _properties()
    assert written["inference_address"] == defaults.inference.url
    assert written["management_address"] == defaults.management.url
    assert written["metrics_address"] == defaults.metrics.url
    assert written["grpc_inference_address"] == written["grpc_management_address"] == settings.HOST
    assert int(written["grpc_inference_port"]) == defaults.ts_grpc.number
    assert int(written["grpc_management_port"]) == defaults.ts_grpc_management.number


def test_handlers_and_settings_name_the_same_counter_folder(tmp_path):
    assert settings.COUNTS_VARIABLE == recorder.VARIABLE
    assert settings.read({"FASHION_RUN_DIR": str(tmp_path)}).counts == tmp_path / "counts"


def test_handlers_and_serving_name_the_same_traces(tmp_path):
    assert settings.TRACES_VARIABLE == traces.VARIABLE
    assert settings.read({"FASHION_RUN_DIR": str(tmp_path)}).traces == tmp_path / "traces.log"
    assert request_patterns.TRACE_HEADER == torchserve.TRACE_HEADER
    assert request_patterns.START_HEADER == torchserve.START_HEADER


def test_config_properties_has_the_handlers_limit_of_a_request():
    assert int(_properties()["max_request_size"]) == limits.REQUEST_BYTES


def test_every_entry_of_config_properties_is_commented():
    commented = True
    for line in jvm.CONFIG.read_text().splitlines():
        # Consecutive entries share a comment.
        commented = line.startswith("#") or (commented and bool(line))
        assert commented or not line, line


def test_variables_change_ports_and_folders(tmp_path):
    values = settings.read(
        {"FASHION_INFERENCE_PORT": "9999", "FASHION_RUN_DIR": str(tmp_path), "FASHION_START_TIMEOUT": "2.5"}
    )
    assert values.inference.url == "http://127.0.0.1:9999"
    assert values.run == tmp_path
    assert values.start_timeout == 2.5


def test_variables_of_the_gateway(tmp_path):
    values = settings.read({"FASHION_TOKENS": "1", "FASHION_RATE_LIMIT": "100"})
    assert (values.tokens, values.rate_limit) == (True, 100)
    assert not settings.read({"FASHION_TOKENS": "0"}).tokens
    assert values.gateway_url == "http://127.0.0.1:8000"
    assert settings.read({"FASHION_CERTIFICATES": str(tmp_path)}).gateway_url == "https://127.0.0.1:8000"


def test_an_empty_variable_counts_as_unset():
    """Compose sets each unset variable that it passes on to an empty string."""
    assert settings.read(dict.fromkeys(_variables(), "")) == settings.read({})


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_variables_that_kubernetes_sets_for_a_service_are_ignored(kind):
    injected = {option.variable: f"{kind}://10.96.0.7:8000" for _, option in settings.options() if option.name}
    assert len(injected) > 5
    assert settings.read(injected) == settings.read({})


def _variables() -> list[str]:
    return [option.variable for _, option in settings.options()]


def test_the_example_has_every_setting_with_its_default():
    assert settings.main("env") in (ROOT / ".env.example").read_text(), "run python -m serving.settings env"


def test_every_setting_is_described_in_help():
    assert [name for name in _variables() if name not in settings.help_text()] == []


@pytest.mark.parametrize(
    ("listen", "host", "url"),
    [
        ("10.0.0.5", "10.0.0.5", "http://10.0.0.5:8000"),
        ("::1", "::1", "http://[::1]:8000"),
        ("fd00:0:0::2", "fd00::2", "http://[fd00::2]:8000"),
        ("0.0.0.0", "127.0.0.1", "http://127.0.0.1:8000"),
        ("::", "127.0.0.1", "http://127.0.0.1:8000"),
    ],
)
def test_the_public_ports_have_the_address_that_the_gateway_listens_on(listen, host, url):
    values = settings.read({"FASHION_LISTEN": listen})
    assert values.gateway_url == url
    assert {values.gateway.host, values.grpc.host, values.gateway_status.host} == {host}
    public = {values.gateway, values.grpc, values.gateway_status}
    assert {port.host for port in set(values.ports) - public} == {settings.HOST}


def test_relative_folder_starts_at_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert settings.read({"FASHION_LOG_DIR": "here"}).logs == tmp_path / "here"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("FASHION_GATEWAY_PORT", "http"),
        ("FASHION_GATEWAY_PORT", "0"),
        ("FASHION_GATEWAY_PORT", "65536"),
        ("FASHION_GATEWAY_PORT", "-1"),
        ("FASHION_GATEWAY_PORT", "80.5"),
        ("FASHION_START_TIMEOUT", "0"),
        ("FASHION_START_TIMEOUT", "nan"),
        ("FASHION_START_TIMEOUT", "inf"),
        ("FASHION_START_TIMEOUT", "soon"),
        ("FASHION_GATEWAY_PORT", "http://10.0.0.1"),
        ("FASHION_DRAIN_DELAY", "-1"),
        ("FASHION_FORK", "no"),
        ("FASHION_WIRE", "own"),
        ("FASHION_OTLP_ENDPOINT", "127.0.0.1:4318"),
        ("FASHION_OTLP_ENDPOINT", "http://a b"),
        ("FASHION_TRACE_RATIO", "1.1"),
        ("FASHION_TRACE_RATIO", "1 %"),
        ("FASHION_LISTEN", "[::1]"),
        ("FASHION_LISTEN", "a b"),
        ("FASHION_LISTEN", "host:8000"),
        ("FASHION_LISTEN", "::g"),
        ("FASHION_LISTEN", "fe80::1%eth0"),
        ("FASHION_DEVICE_TYPE", "cuda"),
        ("FASHION_RATE_LIMIT", "0"),
        ("FASHION_RATE_LIMIT", "1.5"),
        ("FASHION_TOKENS", "yes"),
        ("FASHION_TOKENS", "false"),
    ],
)
def test_error_names_the_variable_and_its_value(name, text):
    with pytest.raises(SettingError, match=name) as raised:
        settings.read({name: text})
    assert repr(text) in str(raised.value)


def test_ports_must_differ():
    with pytest.raises(SettingError, match="INFERENCE_PORT and FASHION_MANAGEMENT_PORT must differ, both are 8081"):
        settings.read({"FASHION_INFERENCE_PORT": "8081"})


def test_folders_default_to_the_repository():
    values = settings.read({})
    assert {values.run.parent, values.logs.parent, values.model_store.parent} == {Path(__file__).parents[3]}
