"""How settings become the gateway's configuration, and which settings are refused."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from pathlib import Path

import pytest

from handlers import limits
from serving import cpu_quota, settings
from serving.errors import SettingError
from serving.gateway import config
from serving.gateway.nginx_binary import Nginx

# As on Debian 12.
NGINX = Nginx(Path("/usr/sbin/nginx"), (1, 22, 1), "--with-http_stub_status_module")
KEY = "0123456789abcdef" * 4


@pytest.fixture
def base(tmp_path):
    return dataclasses.replace(settings.read({}), run=tmp_path / "run", logs=tmp_path / "logs")


def write(base, scratch):
    """Write the configuration; returns the text of all its files."""
    folder = config.write_config(base, NGINX, scratch).parent
    return "".join(path.read_text() for path in folder.glob("*.conf"))


def key_file(folder, text, mode=0o600):
    path = folder / "api_keys"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_templates_use_exactly_the_names_that_have_values(base, tmp_path):
    text = "".join(template.read_text() for template in config.TEMPLATES.iterdir())
    names = set(re.findall(r"\$\{(\w+)\}", text))
    assert names == config.variables(base, NGINX, tmp_path, tmp_path).keys()


def test_a_name_without_a_value_is_an_error():
    assert config.render("a ${B} $c ${d}", {"B": "1"}) == "a 1 $c ${d}"
    with pytest.raises(KeyError, match="NAME"):
        config.render("${NAME}", {})


def test_the_configuration_has_the_services_addresses(base, tmp_path):
    written = write(base, tmp_path)
    assert "listen 127.0.0.1:8000;" in written
    assert "listen 127.0.0.1:8001 http2;" in written
    assert "server 127.0.0.1:8004" in written
    assert "server 127.0.0.1:8080 max_fails=0 max_conns=256;" in written
    assert "server 127.0.0.1:8002 max_fails=0;" in written
    assert f"client_max_body_size {limits.REQUEST_BYTES};" in written
    assert "ssl_certificate " not in written
    for other in (base.management, base.ts_grpc, base.ts_grpc_management):
        assert str(other.number) not in written


def test_with_logs_on_stdout_the_access_log_is_there_too(base, tmp_path):
    assert 'access_log "/dev/stdout" json' in write(dataclasses.replace(base, logs=settings.STDOUT), tmp_path)


def test_the_socket_of_a_killed_nginx_is_removed(base, tmp_path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "gateway.sock"))
    written = write(base, tmp_path)
    assert f'listen "unix:{tmp_path}/gateway.sock";' in written
    assert not (tmp_path / "gateway.sock").exists()


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (2, 2), (64, 8)])
def test_nginx_has_a_worker_for_each_cpu_up_to_eight(base, tmp_path, monkeypatch, cpus, workers):
    monkeypatch.setattr(cpu_quota, "usable_cpus", lambda: cpus)
    assert f"worker_processes {workers};" in write(base, tmp_path)


@pytest.mark.parametrize(
    ("listen", "address", "options"),
    [("0.0.0.0", "0.0.0.0", ""), ("::1", "[::1]", ""), ("::", "[::]", " ipv6only=off")],
)
def test_the_gateway_alone_listens_on_the_chosen_address(base, tmp_path, listen, address, options):
    written = write(dataclasses.replace(base, listen=listen), tmp_path)
    for port in (8000, 8003):
        assert f"listen {address}:{port}{options};" in written
    assert f"listen {address}:8001{options} http2;" in written
    assert "server 127.0.0.1:8002 max_fails=0;" in written


@pytest.mark.parametrize(
    ("ratio", "shares"),
    [(0.0, "{ * 00; }"), (0.00001, "{ * 00; }"), (0.015, "{ 1.50% 01; * 00; }"), (1.0, "{ 100.00% 01; * 00; }")],
)
def test_traces_are_included_if_there_is_a_collector(base, tmp_path, ratio, shares):
    assert not re.search(r"include trace|traceparent \$own", write(base, tmp_path))
    traced = dataclasses.replace(base, otlp_endpoint="http://127.0.0.1:4318", trace_ratio=ratio)
    written = write(traced, tmp_path)
    assert f"split_clients $request_id $random_flags {shares}" in written
    assert written.count("include traced_server.conf;") == 2
    assert f'access_log "{base.traces}" trace' in written


def test_keys_are_included_and_not_copied(base, tmp_path):
    path = key_file(tmp_path, f"# callers\n\n{KEY} alice;\n  {KEY[::-1]}\tbob.2;\n")
    written = write(dataclasses.replace(base, api_keys=path), tmp_path)
    assert f'include "{path}";' in written
    assert KEY not in written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no key"),
        ("# nothing\n", "no key"),
        (f"\n{KEY} alice\n", "line 2"),
        (f"{KEY};\n", "line 1"),
        ("0123 alice;\n", "line 1"),
        (f"{KEY}g alice;\n", "line 1"),
        (f'{KEY} "alice";\n', "line 1"),
        (f"{KEY} nobody;\n", "line 1"),
        (f"{KEY} alice; default bob;\n", "line 1"),
        (f"{KEY} alice;\n{KEY.upper()} bob;\n", "line 2"),
    ],
    ids=[
        *("empty", "comments", "no semicolon", "no name", "short", "not hexadecimal", "quoted", "reserved"),
        *("two entries", "repeated"),
    ],
)
def test_an_unusable_key_is_reported_with_its_line(base, tmp_path, text, message):
    path = key_file(tmp_path, text)
    with pytest.raises(SettingError, match=message) as raised:
        config.write_config(dataclasses.replace(base, api_keys=path), NGINX, tmp_path)
    assert str(path) in str(raised.value)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602])
def test_keys_that_others_can_read_or_change_are_refused(base, tmp_path, mode):
    path = key_file(tmp_path, f"{KEY} alice;\n", mode)
    with pytest.raises(SettingError, match="chmod 600"):
        config.write_config(dataclasses.replace(base, api_keys=path), NGINX, tmp_path)


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o440, 1)])
def test_keys_that_the_group_can_read_are_accepted_with_a_warning(base, tmp_path, caplog, mode, warnings):
    path = key_file(tmp_path, f"{KEY} alice;\n", mode)
    assert f'include "{path}";' in write(dataclasses.replace(base, api_keys=path), tmp_path)
    assert caplog.messages.count(f"FASHION_API_KEYS: the group of {path} can read it") == warnings


@pytest.mark.parametrize(("user", "warnings"), [(0, 1), (1000, 0)])
def test_root_is_warned_about(base, tmp_path, caplog, monkeypatch, user, warnings):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert ("user root" in write(base, tmp_path)) == bool(warnings)
    assert sum("runs as root" in message for message in caplog.messages) == warnings


def test_missing_files_are_reported(base, tmp_path):
    with pytest.raises(SettingError, match=r"FASHION_API_KEYS.*nosuch"):
        config.write_config(dataclasses.replace(base, api_keys=tmp_path / "nosuch"), NGINX, tmp_path)
    with pytest.raises(SettingError, match=r"FASHION_CERTIFICATES.*gateway\.crt.*make certs"):
        config.write_config(dataclasses.replace(base, certificates=tmp_path), NGINX, tmp_path)


def test_a_path_that_nginx_would_misread_is_refused(base, tmp_path):
    with pytest.raises(SettingError, match="nginx cannot use"):
        config.write_config(dataclasses.replace(base, logs=tmp_path / "a$b"), NGINX, tmp_path)
