"""Programs that tests run in a replica, or beside it, with ``python -c``."""

from __future__ import annotations

KILL_FRONTEND = """
import psutil
[frontend] = [each for each in psutil.process_iter() if each.name() == "java"]
frontend.kill()
"""
HANG_WORKERS = """
import psutil
from serving import settings
from serving.torchserve import management
for model in management.of_service(settings.read()).models():
    for worker in model.workers:
        psutil.Process(worker.pid).suspend()
"""
COUNT_HUNG = """
import psutil
print("hung", sum(each.status() == psutil.STATUS_STOPPED for each in psutil.process_iter()))
"""
# Prints as JSON the open ports of each address that some names have: names, a slash, ports.
SCAN = """
import json, socket, sys
split = sys.argv.index("/")
addresses = {each[4][0] for name in sys.argv[1:split] for each in socket.getaddrinfo(name, None, socket.AF_INET)}
open_ports = {address: [] for address in sorted(addresses)}
for address, ports in open_ports.items():
    for port in map(int, sys.argv[split + 1:]):
        with socket.socket() as each:
            each.settimeout(2)
            if each.connect_ex((address, port)) == 0:
                ports.append(port)
print(json.dumps(open_ports))
"""
# Makes requests, each with a connection of its own, and prints as JSON how many each version has answered. Arguments:
# URL, API key, number of requests.
CONNECT = """
import collections, json, sys, urllib.request
versions = collections.Counter()
for _ in range(int(sys.argv[3])):
    headers = {"X-API-Key": sys.argv[2], "Content-Type": "application/json"}
    request = urllib.request.Request(sys.argv[1] + "/predictions/blobs_mlp", b"[0.5, -1.5, 3.0, 2.0]", headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        versions[answer.headers["X-Model-Version"]] += 1
print(json.dumps(versions))
"""
