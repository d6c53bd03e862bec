"""This service alone: requests per second and latency by concurrency and form of the body, for both image models.

    python -m bench.sweep          part of make bench; needs wrk; about four minutes

The load uses TorchServe's own port of a private service. Figures are medians of rounds in turn.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import local_service, reporting, wrk
from models.datasets import fashion_mnist

MODELS = ("fashion_mlp", "fashion_convnet")
CONNECTIONS = (1, 4, 16, 64, 256)
# The concurrency of all forms other than raw pixels.
FORM_CONNECTIONS = 64
ROUNDS = 5
SECONDS = 2


def forms(image: NDArray[np.uint8]) -> dict[str, tuple[bytes, Mapping[str, str]]]:
    """One gray image, uint8 ``[28, 28]``, as bodies with their headers."""
    png, npy = io.BytesIO(), io.BytesIO()
    Image.fromarray(image).save(png, "png")
    np.save(npy, image)
    tensor = {"name": "image", "shape": [1, 28, 28], "datatype": "UINT8"}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": image.size}}]}).encode()
    oip = json.dumps({"inputs": [{**tensor, "data": image.ravel().tolist()}]}).encode()
    octets, text = {"Content-Type": "application/octet-stream"}, {"Content-Type": "application/json"}
    return {
        "raw": (image.tobytes(), octets),
        "npy": (npy.getvalue(), {"Content-Type": "application/x-npy"}),
        "png": (png.getvalue(), {"Content-Type": "image/png"}),
        "json": (json.dumps(image.tolist()).encode(), text),
        "oip json": (oip, text),
        "oip binary": (head + image.tobytes(), {**octets, "Inference-Header-Content-Length": str(len(head))}),
    }


def _path(form: str, model: str) -> str:
    return f"/v2/models/{model}/infer" if form.startswith("oip") else f"/predictions/{model}"


def main() -> int:
    """Write ``bench/results/sweep.json``; return the exit code."""
    bodies = forms(fashion_mnist().test_inputs[0].numpy())
    cells = [(model, "raw", connections) for model in MODELS for connections in CONNECTIONS]
    cells += [(model, form, FORM_CONNECTIONS) for model in MODELS for form in bodies if form != "raw"]
    loads: dict[tuple[str, str, int], list[wrk.Load]] = {cell: [] for cell in cells}
    try:
        with local_service.service(MODELS) as service:
            for model in MODELS:
                url = f"{service.inference}{_path('raw', model)}"
                wrk.run(url, FORM_CONNECTIONS, local_service.WARM_UP_S, *bodies["raw"])
            for turn in range(1, ROUNDS + 1):
                for model, form, connections in cells:
                    print(f"\rround {turn}/{ROUNDS} {model} {form} c={connections}   ", end="", file=sys.stderr)
                    url = f"{service.inference}{_path(form, model)}"
                    loads[model, form, connections].append(wrk.run(url, connections, SECONDS, *bodies[form]))
    except (wrk.LoadError, local_service.ServiceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    results: list[dict[str, Any]] = []
    for (model, form, connections), rounds in loads.items():
        results.append(
            {
                "model": model,
                "form": form,
                "connections": connections,
                "rates": [round(load.rate) for load in rounds],
                "requests_per_second": statistics.median(load.rate for load in rounds),
                "p50_ms": statistics.median(load.p50 for load in rounds),
                "p99_ms": statistics.median(load.p99 for load in rounds),
                "failed": sum(load.failed for load in rounds),
            }
        )
    rows = [
        [
            row["model"],
            row["form"],
            str(row["connections"]),
            f"{row['requests_per_second']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            str(row["failed"]),
        ]
        for row in results
    ]
    print(reporting.table(["model", "form", "connections", "requests/s", "p50 ms", "p99 ms", "failed"], rows))
    print(f"→ {reporting.write('sweep', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
