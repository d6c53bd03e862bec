"""Tables and charts of the comparison, from ``bench/results/peers-*.json`` into the README and ``docs/``.

python -m bench.charts         part of make bench-peers
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib

from bench import reporting
from serving.settings import ROOT

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Of other servers; this service is blue.
OTHERS = ("orange", "green", "red", "purple", "brown", "pink", "gray", "olive")
IMAGES = ROOT / "docs" / "images"
OURS = "fashion-serve"
TITLES = {
    "mlp": "fashion_mlp, raw pixels",
    "convnet": "fashion_convnet, raw pixels",
    "png": "fashion_mlp, PNG",
    "lone": "fashion_mlp, one caller, no server makes batches",
}


def results() -> dict[str, dict[str, Any]]:
    """What has been measured, by table: the machine and the results."""
    found = {title: reporting.RESULTS / f"peers-{title}.json" for title in TITLES}
    return {title: json.loads(path.read_text()) for title, path in found.items() if path.is_file()}


def throughput_table(measured: dict[str, Any]) -> str:
    """Requests a second (spread of the rounds), p50 and p99 in ms, by server and number of connections."""
    servers: dict[str, Any] = measured["results"]["servers"]
    connections = list(servers[OURS]["connections"])
    first = f"c={connections[0]}"
    rows = []
    for name, server in sorted(
        servers.items(), key=lambda item: -item[1]["connections"][connections[-1]]["requests_per_second"]
    ):
        cells = []
        for each in connections:
            figure = server["connections"][each]
            low, high = min(figure["rates"]) / 1000, max(figure["rates"]) / 1000
            failed = f", {figure['failed']} failed" if figure["failed"] else ""
            rate = f"{figure['requests_per_second']:,.0f} ({low:.1f}-{high:.1f}k)"
            cells.append(f"{rate}, {figure['p50_ms']:.2f} / {figure['p99_ms']:.1f} ms{failed}")
        shown = f"**{name}**" if name == OURS else f"{name} {server['version']}"
        if deaths := server.get("deaths"):
            shown += f" (died {deaths} times and was started again)"
        rows.append([shown, server["setting"], *cells])
    missing = [[name, "missing", *[""] * len(connections)] for name in measured["results"]["missing"]]
    return reporting.table(["server", "setting", first, *(f"c={each}" for each in connections[1:])], rows + missing)


def ratio_to_best(measured: dict[str, Any], connections: str) -> tuple[float, str]:
    """This service's requests a second over those of the best other server, and that server's name."""
    servers: dict[str, Any] = measured["results"]["servers"]
    rates = {name: server["connections"][connections]["requests_per_second"] for name, server in servers.items()}
    ours = rates.pop(OURS)
    best = max(rates, key=lambda name: rates[name])
    return ours / rates[best], best


def _ratios(measured: dict[str, Any]) -> str:
    connections = measured["results"]["servers"][OURS]["connections"]
    told = []
    for each in connections:
        ratio, best = ratio_to_best(measured, each)
        told.append(f"{ratio:.2f} at c={each} ({best})")
    return f"{OURS} over the best other server: {', '.join(told)}."


def _throughput_chart(every: dict[str, dict[str, Any]], path: Path) -> None:
    shown = [title for title in ("mlp", "convnet", "png") if title in every]
    figure, axes = plt.subplots(1, len(shown), figsize=(5 * len(shown), 4.2), squeeze=False, layout="constrained")
    for axis, title in zip(axes[0], shown, strict=True):
        others = iter(OTHERS)
        for name, server in every[title]["results"]["servers"].items():
            points = [(int(c), f["requests_per_second"]) for c, f in server["connections"].items()]
            if name == OURS:
                style = {"lw": 3.0, "zorder": 3, "color": "tab:blue"}
            else:
                style = {"lw": 1.3, "color": f"tab:{next(others)}"}
            axis.plot(*zip(*points, strict=True), marker="o", label=name, **style)
        axis.set(xscale="log", yscale="log", title=TITLES[title], xlabel="connections", ylabel="requests/s")
        axis.set_xticks([1, 16, 64, 256], ["1", "16", "64", "256"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _latency_chart(measured: dict[str, Any], path: Path) -> None:
    servers = measured["results"]["servers"]
    connections = [each for each in ("16", "64", "256") if each in servers[OURS]["connections"]]
    figure, axes = plt.subplots(1, len(connections), figsize=(4.6 * len(connections), 4.2), layout="constrained")
    for axis, each in zip(axes, connections, strict=True):
        order = sorted(servers, key=lambda name: -servers[name]["connections"][each]["p50_ms"])
        p50 = [servers[name]["connections"][each]["p50_ms"] for name in order]
        p99 = [servers[name]["connections"][each]["p99_ms"] for name in order]
        colours = ["tab:blue" if name == OURS else "0.6" for name in order]
        axis.barh(order, p99, color=colours, alpha=0.35, label="p99")
        axis.barh(order, p50, color=colours, label="p50")
        axis.set(xscale="log", title=f"{each} connections", xlabel="ms: p50 dark, p99 light")
        axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _between_marks(path: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a document."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    before = path.read_text()
    if not marks.search(before):
        raise ValueError(f"{path} has no place for {name}")
    path.write_text(marks.sub(lambda found: f"{found[1]}{text}\n{found[2]}", before))


def main() -> int:
    every = results()
    if "mlp" not in every:
        print("error: there are no results yet; run: make bench-peers", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    _throughput_chart(every, IMAGES / "peers-throughput.png")
    _latency_chart(every["mlp"], IMAGES / "peers-latency.png")
    machine = every["mlp"]["machine"]
    stamp = f"{machine['processor']}, {machine['cores']} cores shared with the load, {machine['date']}."
    _between_marks(ROOT / "README.md", "peers", f"{throughput_table(every['mlp'])}\n\n{stamp}")
    tables = "\n\n".join(
        f"### {TITLES[title]}\n\n{throughput_table(measured)}\n\n{_ratios(measured)}"
        for title, measured in every.items()
    )
    _between_marks(ROOT / "docs" / "performance.md", "peers", f"{tables}\n\n{stamp}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
