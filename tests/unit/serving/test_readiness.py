"""Readiness: one worker's lines in the common log, workers that end while they load, and the golden check."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading

import pytest

from serving import settings
from serving.errors import StartError
from serving.polling import wait_until
from serving.settings import HOST
from serving.store import archives
from serving.torchserve import golden_check, readiness
from serving.torchserve.management import Model, Worker
from tests.support import packing

LOG = """\
2026-01-01T00:00:00,000 W-9000-first_1.0-stdout Torch worker started.
2026-01-01T00:00:00,001 W-9001-second_1.0-stdout Torch worker started.
2026-01-01T00:00:00,002 W-9000-first_1.0-stderr Traceback (most recent call last):
2026-01-01T00:00:00,003 W-9000-first_1.0-stderr   File "a.py", line 1
2026-01-01T00:00:00,004 W-9001-second_1.0-stdout Connection accepted.
2026-01-01T00:00:00,005 W-9000-first_1.0-stderr ValueError: W-9001-second_1.0-stdout
2026-01-01T00:00:00,006 W-90001-first_1.0-stdout another worker
"""


def test_lines_of_one_worker_without_time_and_thread(tmp_path):
    log = tmp_path / "workers.log"
    log.write_text(LOG)
    assert readiness.worker_lines(log, "9000").splitlines() == [
        "Torch worker started.",
        "Traceback (most recent call last):",
        '  File "a.py", line 1',
        "ValueError: W-9001-second_1.0-stdout",
    ]
    assert readiness.worker_lines(log, "9001", 1) == "Connection accepted."
    assert readiness.worker_lines(log, "9002") == ""


def test_missing_log_has_no_lines(tmp_path):
    assert readiness.worker_lines(tmp_path / "none.log", "9000") == ""
    assert readiness.last_lines(tmp_path / "none.log") == ""


def test_last_lines(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\n\xff\n")
    assert readiness.last_lines(log, 2) == "two\n\N{REPLACEMENT CHARACTER}"


def test_a_worker_that_starts_and_ends_between_two_checks_is_detected(tmp_path, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    probe = readiness.FrontendProbe(settings.read({"FASHION_LOG_DIR": str(tmp_path)}), [])
    (tmp_path / "workers.log").write_text(LOG)

    def report(pid):
        model = Model("first", "1.0", 1, 0, 100, (Worker("9000", pid, False, False),))
        monkeypatch.setattr(probe._management, "models", lambda: [model])

    for pid in (-1, os.getpid()):
        report(pid)
        assert probe() == "loading first 1.0 (0 of 1 models ready)"
    report(process.pid)
    with pytest.raises(StartError, match=r"first 1\.0 ended while it loaded the model(.|\n)*ValueError"):
        probe()


def test_a_worker_that_ends_before_it_reports_its_pid_is_detected(tmp_path):
    # Starts a child as TorchServe's frontend starts a worker. Services of other tests may have workers from 9000 on.
    frontend = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()', '/tmp/.ts.sock.77'])"
    model = Model("first", "1.0", 1, 0, 100, (Worker("77", -1, False, False),))
    loading = readiness.LoadingWorkers(tmp_path / "workers.log")
    (tmp_path / "workers.log").write_text(LOG.replace("9000", "77"))
    with subprocess.Popen([sys.executable, "-c", frontend], stdin=subprocess.PIPE) as process:

        def seen():
            loading.check([model])
            return bool(loading._seen["77"])

        assert wait_until(seen, 30)
        process.communicate(b"\n")
    with pytest.raises(StartError, match=r"first 1\.0 ended while it loaded the model(.|\n)*ValueError"):
        loading.check([model])


def test_a_handler_that_answers_in_another_format_fails_the_golden_check(tmp_path):
    archive = archives.read(packing.pack(tmp_path))

    class Json(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"[[0.5, 0.5]]")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer((HOST, 0), Json) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        message = r"golden check of tiny 1\.0 failed: the answer is not a \.npy file \(Content-Type: application/json\)"
        with pytest.raises(StartError, match=message):
            golden_check.run(settings.read({"FASHION_INFERENCE_PORT": str(server.server_port)}), archive)
        answering.join()
