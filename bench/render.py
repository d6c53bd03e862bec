"""Render figures into the pages, from ``bench/results/*.json`` and the code's defaults.

    python -m bench.render             rewrite the figures in README.md and docs/ (make figures)
    python -m bench.render --check     fail if a page has other figures (make lint)

Imports from the other measurements what a table says of them, such as ``sweep.FORM_CONNECTIONS``.

A page marks each figure or table: ``<!-- figures: NAME ARGUMENTS -->…<!-- /figures -->``. ``FIGURES`` has the names.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import bulk, gateway, memory, reporting, sweep
from bench.compare import OURS
from models.catalog import Serving
from serving import settings
from serving.settings import ROOT

# The comparisons, in the order of the pages.
TITLES = {
    "mlp": "fashion_mlp, raw pixels",
    "convnet": "fashion_convnet, raw pixels",
    "png": "fashion_mlp, PNG",
    "lone": "fashion_mlp, one caller, no server makes batches",
}
# Rows of README.md's table: the fastest servers at 256 connections. docs/internals/performance-log.md has all.
_SHORT_TABLE_ROWS = 5
_MARK = re.compile(r"(<!-- figures: ([^>]+?) -->)(.*?)(<!-- /figures -->)", re.DOTALL)


class FigureError(Exception):
    """A page names a figure that does not exist; the message has the figure."""


def _measurement(name: str) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads((reporting.RESULTS / f"{name}.json").read_text())
    return measured


def comparison(title: str) -> dict[str, Any]:
    """The machine and the results of one of ``TITLES``."""
    return _measurement(f"peers-{title}")


def results(name: str) -> Any:
    """The results of a measurement, without the machine."""
    return _measurement(name)["results"]


def _by_rate(servers: dict[str, Any], connections: str) -> list[tuple[str, Any]]:
    return sorted(servers.items(), key=lambda item: -item[1]["connections"][connections]["requests_per_second"])


def _server_name(name: str, server: dict[str, Any]) -> str:
    deaths = f" (died {server['deaths']} times and was restarted)" if server.get("deaths") else ""
    return f"**{name}**" if name == OURS else f"{name} {server['version']}{deaths}"


def throughput_table(measured: dict[str, Any]) -> str:
    """Requests per second (range of the rounds), p50 and p99 in ms, by server and number of connections."""
    servers: dict[str, Any] = measured["results"]["servers"]
    connections = list(servers[OURS]["connections"])
    rows = []
    for name, server in _by_rate(servers, connections[-1]):
        cells = []
        for each in connections:
            figure = server["connections"][each]
            low, high = min(figure["rates"]) / 1000, max(figure["rates"]) / 1000
            failed = f", {figure['failed']} failed" if figure["failed"] else ""
            rate = f"{figure['requests_per_second']:,.0f} ({low:.1f}-{high:.1f}k)"
            cells.append(f"{rate}, {figure['p50_ms']:.2f} / {figure['p99_ms']:.1f} ms{failed}")
        rows.append([_server_name(name, server), server["setting"], *cells])
    missing = [[name, "missing", *[""] * len(connections)] for name in measured["results"]["missing"]]
    return reporting.table(["server", "setting", *(f"c={each}" for each in connections)], rows + missing)


def ratio_to_best(measured: dict[str, Any], connections: str) -> tuple[float, str]:
    """The ratio of this service's rate to the fastest other server's, and that server's name."""
    servers: dict[str, Any] = measured["results"]["servers"]
    rates = {name: server["connections"][connections]["requests_per_second"] for name, server in servers.items()}
    ours = rates.pop(OURS)
    best = max(rates, key=lambda name: rates[name])
    return ours / rates[best], best


def _peers_short(title: str) -> str:
    servers = comparison(title)["results"]["servers"]
    connections = list(servers[OURS]["connections"])
    rows = [
        [_server_name(name, server), *(f"{server['connections'][c]['requests_per_second']:,.0f}" for c in connections)]
        for name, server in _by_rate(servers, connections[-1])[:_SHORT_TABLE_ROWS]
    ]
    return reporting.table(["server", *(f"{c} connections" if c != "1" else "1 connection" for c in connections)], rows)


def _ratios() -> str:
    cells: dict[str, dict[str, str]] = {}
    for title, shown in TITLES.items():
        measured = comparison(title)
        connections = measured["results"]["servers"][OURS]["connections"]
        cells[shown] = {c: "{:.2f} ({})".format(*ratio_to_best(measured, c)) for c in connections}
    # One comparison has fewer columns.
    columns = sorted({c for ratios in cells.values() for c in ratios}, key=int)
    rows = [[shown, *(ratios.get(c, "") for c in columns)] for shown, ratios in cells.items()]
    return reporting.table(["comparison", *(f"c={c}" for c in columns)], rows)


def _growth() -> str:
    default = Serving()
    cells: dict[tuple[int, int], dict[str, str]] = {}
    for each in results("growth"):
        cell = f"{each['requests_per_second']:,.0f}, {each['processor_us_per_request']:.0f}"
        cells.setdefault((each["workers"], each["batch_size"]), {})[f"c={each['connections']}"] = cell
    names = {(default.workers, default.batch_size): " (default)"}
    rows = [[f"{each[0]} × {each[1]}{names.get(each, '')}", *cells[each].values()] for each in cells]
    return reporting.table(["workers × batch size", *next(iter(cells.values()))], rows)


def _forms() -> str:
    rates: dict[str, dict[str, float]] = {}
    for each in results("sweep"):
        if each["connections"] == sweep.FORM_CONNECTIONS:
            rates.setdefault(each["form"], {})[each["model"]] = each["requests_per_second"]
    models = sweep.MODELS
    shown = {"oip json": "Open Inference Protocol, JSON", "oip binary": "Open Inference Protocol, binary"}
    shown |= {"raw": "raw pixels", "png": "PNG", "json": "JSON lists", "npy": "`.npy`"}
    order = sorted(rates, key=lambda form: -rates[form][models[0]])
    rows = [[shown[form], *(f"{rates[form][model]:,.0f}" for model in models)] for form in order]
    return reporting.table(["body", *(f"`{model}`" for model in models)], rows)


def _precision() -> str:
    measured = results("precision")
    batches = " / ".join(next(iter(measured.values()))["microseconds_an_image"])
    rows = []
    for name, each in measured.items():
        microseconds = " / ".join(f"{value:.1f}" for value in each["microseconds_an_image"].values())
        difference = f"{each['largest_difference']:.1e}" if each["largest_difference"] else ""
        rows.append([name, f"{each['test_accuracy']:.4f}", difference, microseconds])
    titles = ["precision", "accuracy", "largest difference of a probability", f"µs an image, batch {batches}"]
    return reporting.table(titles, rows)


def _single_caller() -> str:
    cells: dict[str, dict[str, str]] = {}
    for each in results("lone"):
        cell = f"{each['requests_per_second']:,.0f}, {each['p50_ms']:.2f} ms"
        cells.setdefault(each["way"], {})[f"c={each['connections']}"] = cell
    return reporting.table(["way", *next(iter(cells.values()))], [[way, *row.values()] for way, row in cells.items()])


def _models() -> str:
    rows = [
        [
            f"`{name}`",
            each["description"],
            each["input"],
            f"{each['test_accuracy']:.4f}",
            f"{each['expected_calibration_error']:.4f}",
            f"{each['parameters']:,}",
            f"{each['train_seconds']:.0f} s",
        ]
        for name, each in results("models").items()
    ]
    titles = ["model", "what it does", "input", "test accuracy", "calibration error", "parameters", "training"]
    return reporting.table(titles, rows)


def _alone() -> str:
    """This service by itself: the figures of ``make bench`` that need no other server."""
    seconds = results("start")["medians"]
    requests = 2 * memory.REQUESTS
    one, many = gateway.CONNECTIONS
    through_gateway = {callers: results("gateway")[f"c={callers}"]["system"] for callers in (one, many)}
    rows = [
        [
            f"bulk, {bulk.IMAGES:,} raw images a request, over torch alone: `{name}`",
            f"{each['ratio']:.2f}",
            "`bench.bulk`",
        ]
        for name, each in results("bulk").items()
    ]
    rows += [
        ["start to the first right answer, one model", f"{seconds['one model']:.2f} s", "`bench.start`"],
        ["of which `import torch`", f"{seconds['import torch']:.2f} s", "`bench.start`"],
        [
            f"memory after {requests:,} requests, two models",
            f"{_memory(f'after {requests:,} requests')} MB",
            "`bench.memory`",
        ],
        [f"its growth from {memory.REQUESTS:,} requests on", f"{results('memory')['growth']:.1%}", "`bench.memory`"],
        [
            "added by the gateway to one caller's wait",
            f"{through_gateway[one]['added_p50_ms']:.2f} ms",
            "`bench.gateway`",
        ],
        [
            f"rate through the gateway, {many} callers",
            f"{through_gateway[many]['throughput_ratio']:.2f} ×",
            "`bench.gateway`",
        ],
        [
            "the Python client's bulk rate, of `wrk`'s",
            f"{results('client')['ratio_of_medians']:.2f} ×",
            "`bench.client`",
        ],
    ]
    rows += [
        [f"training over a textbook's loop: `{name}`", f"{each['ratio']:.1f} ×", "`bench.training`"]
        for name, each in results("training").items()
    ]
    return reporting.table(["what", "measured", "by"], rows)


def _memory(when: str) -> str:
    return f"{results('memory')['megabytes'][when]['all']:.0f}"


def _chaos(key: str) -> str:
    """Cells of one fault: calls answered, not answered, wrong; retries; seconds until all parts were ready again."""
    scene = results("chaos")[key]
    calls, tries = scene["calls"], scene["tries"]
    unanswered = sum(count for outcome, count in calls.items() if outcome not in ("ok", "wrong"))
    retries = sum(tries.values()) - sum(calls.values())
    ready = scene.get("back_seconds") or [
        scene[name] for name in ("ready_seconds", "replaced_seconds") if name in scene
    ]
    shown = f"{max(ready):.1f} s" if ready else "–"
    return f" {calls['ok']:,} | {unanswered:,} | {calls.get('wrong', 0)} | {retries:,} | {shown} "


def _slow_clients() -> str:
    """The other callers' rate beside slow clients, as a share of their rate without slow clients."""
    scene = results("chaos")["slow-clients"]
    return f"{statistics.median(scene['among']) / statistics.median(scene['alone']):.0%}"


def _fleet() -> str:
    rows = [
        [
            str(row["replicas"]),
            str(row["callers"]),
            f"{row['requests_per_second']:,.0f} ({min(row['rates']):,}-{max(row['rates']):,})",
            f"{row['efficiency']:.2f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            f"{row['throttled_share']:.0%}",
            f"{row['replica_us_per_request']:.0f}",
            f"{row['edge_us_per_request']:.0f}",
            str(row["failed"]),
        ]
        for row in results("fleet")
    ]
    titles = ["replicas", "callers", "requests/s", "efficiency", "p50 ms", "p99 ms", "throttled periods"]
    return reporting.table([*titles, "replica µs a request", "edge µs a request", "failed"], rows)


def _simulation(part: str) -> str:
    rows = results("simulation")[part]
    if part == "check":
        titles = ["replicas", "measured requests/s", "simulated", "difference"]
        lines = [
            [str(row["replicas"]), f"{row['measured']:,.0f}", f"{row['simulated']:,.0f}", f"{row['error']:+.1%}"]
            for row in rows
        ]
    elif part == "latency":
        loads = sorted({row["load"] for row in rows})
        titles = ["replicas", "edges", "choice", *(f"p50, p99 ms at {load:.0%}" for load in loads)]
        cells: dict[tuple[str, ...], list[str]] = {}
        for row in sorted(rows, key=lambda row: row["load"]):
            fleet = (str(row["replicas"]), str(row["edges"]), row["policy"])
            cells.setdefault(fleet, []).append(f"{row['p50_ms']:.2f}, {row['p99_ms']:.2f}")
        lines = [[*fleet, *values] for fleet, values in cells.items()]
    elif part == "loss":
        titles = ["replicas", "requests sent again", "share of those in three seconds", "longest s", "unanswered"]
        lines = [
            [
                str(row["replicas"]),
                str(row["sent_again"]),
                f"{row['share']:.2%}",
                f"{row['longest_s']:.1f}",
                str(row["unanswered"]),
            ]
            for row in rows
        ]
    elif part == "update":
        titles = ["replicas", "at once", "the whole update, s", "p99 ms before", "p99 ms during", "ratio", "unanswered"]
        lines = [
            [
                str(row["replicas"]),
                str(row["at_once"]),
                str(row["seconds"]),
                f"{row['before_ms']:.0f}",
                f"{row['during_ms']:.0f}",
                f"{row['during_ms'] / row['before_ms']:.1f}",
                str(row["unanswered"]),
            ]
            for row in rows
        ]
    else:
        titles = ["replicas at the peak", "most that go in a minute", "replica hours", "share of fixed", "overloaded"]
        lines = [
            [
                f"{row['peak']:,}",
                row["down"],
                f"{row['replica_hours']:,.0f}",
                f"{row['replica_hours'] / row['fixed_hours']:.0%}",
                f"{row['overloaded_minutes']:.1f} min",
            ]
            for row in rows
        ]
    return reporting.table(titles, lines)


def _cpu_hours() -> str:
    """CPU hours of a million requests, by the CPU time of a request in the largest measured fleet."""
    row = results("fleet")[-1]
    return f"{(row['replica_us_per_request'] + row['edge_us_per_request']) / 3600:.2f}"


def _machine(name: str) -> str:
    machine = _measurement(name)["machine"]
    return f"{machine['processor']}, {machine['cores']} cores shared with the load, {machine['date']}"


def _value(form: str, path: str) -> str:
    """One number of a results file, by its path ``FILE/KEY/…``, in one of Python's formats."""
    name, *keys = path.split("/")
    value = results(name)
    for key in keys:
        value = value[int(key) if isinstance(value, list) else key]
    return format(value, form)


def _ratio(title: str, connections: str) -> str:
    return f"{ratio_to_best(comparison(title), connections)[0]:.2f}"


FIGURES: dict[str, Callable[..., str]] = {
    "alone": _alone,
    "chaos": _chaos,
    "cpu-hours": _cpu_hours,
    "fleet": _fleet,
    "forms": _forms,
    "growth": _growth,
    "machine": _machine,
    "memory": _memory,
    "models": _models,
    "peers": lambda title: throughput_table(comparison(title)),
    "peers-short": _peers_short,
    "precision": _precision,
    "ratio": _ratio,
    "ratios": _ratios,
    "simulation": _simulation,
    "settings": lambda: settings.main("markdown"),
    "single-caller": _single_caller,
    "slow-clients": _slow_clients,
    "value": _value,
}
# The last argument may hold spaces, such as "after 100,000 requests".
_ARGUMENTS = {"value": 2, "ratio": 2}


def rendered(text: str) -> str:
    """A page with all marked figures rendered.

    Raises:
        FigureError: a marked figure does not exist.
    """

    def replace(match: re.Match[str]) -> str:
        name, _, rest = match[2].partition(" ")
        arguments = rest.split(" ", _ARGUMENTS.get(name, 1) - 1) if rest else []
        try:
            figure = FIGURES[name](*arguments)
        except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
            raise FigureError(f"no figure {match[2]!r} ({type(error).__name__}: {error})") from error
        block = f"\n\n{figure}\n\n" if figure.startswith("|") else figure
        return f"{match[1]}{block}{match[4]}"

    return _MARK.sub(replace, text)


def pages() -> list[Path]:
    """The pages that may have figures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check all pages; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.render", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page has other figures")
    only_check = parser.parse_args(arguments).check
    code = 0
    for page in pages():
        shown = page.relative_to(ROOT)
        before = page.read_text()
        try:
            after = rendered(before)
        except FigureError as error:
            print(f"error: {shown}: {error}", file=sys.stderr)
            code = 1
            continue
        if after == before:
            continue
        if only_check:
            print(
                f"error: {shown} has other figures than bench/results and the code; run: make figures", file=sys.stderr
            )
            code = 1
        else:
            page.write_text(after)
            print(f"→ {shown}")
    return code


if __name__ == "__main__":
    sys.exit(main())
