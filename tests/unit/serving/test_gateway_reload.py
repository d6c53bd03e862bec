"""When the gateway is reloaded, and when there is nothing to reload."""

from __future__ import annotations

import os

from serving import settings
from serving.gateway import reload
from serving.store.live import Canary, Live

STATE = {"tiny": Live("1.0", (), Canary("1.1", 12.5))}


def test_only_a_changed_state_needs_a_running_gateway(tmp_path):
    service = settings.read({"FASHION_RUN_DIR": str(tmp_path)})
    assert not reload.apply(service, STATE, ())
    assert reload.apply(service, STATE, ())
    assert not reload.apply(service, STATE, {"tiny"})


def test_another_process_with_the_gateways_old_pid_gets_no_signal(tmp_path):
    (tmp_path / "nginx.pid").write_text(str(os.getpid()))
    assert not reload.reload(tmp_path / "nginx.pid", wait=True)
