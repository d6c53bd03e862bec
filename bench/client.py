"""The Python client in bulk, compared with wrk: images per second through the gateway.

    python -m bench.client         part of make bench; needs wrk and nginx; about two minutes

Both send pieces of 1,024 images as ``.npy`` over the same number of connections, in turn, and get ``.npy`` answers.
Figures are medians of the rounds. The client also builds the pieces and joins the answers, which wrk does not.
"""

from __future__ import annotations

import io
import statistics
import sys
import time

import numpy as np
from fashion_client import FashionClient, FashionError

from bench import local_service, reporting, wrk
from models.datasets import fashion_mnist

MODEL = "fashion_mlp"
PIECE = 1024
PIECES = 150
IN_FLIGHT = 4
ROUNDS = 7
SECONDS = 4


def main() -> int:
    """Write ``bench/results/client.json``; return the exit code."""
    images = fashion_mnist().test_inputs.numpy()
    bulk = np.resize(images, (PIECE * PIECES, *images.shape[1:]))
    buffer = io.BytesIO()
    np.save(buffer, images[:PIECE])
    headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
    rates: dict[str, list[float]] = {"wrk": [], "client": []}
    try:
        with local_service.service([MODEL]) as service, FashionClient(service.gateway, in_flight=IN_FLIGHT) as client:
            client.predict(bulk[: 8 * PIECE], model=MODEL)
            for turn in range(1, ROUNDS + 1):
                print(f"\rround {turn}/{ROUNDS}", end="", file=sys.stderr)
                load = wrk.run(f"{service.gateway}/predictions/{MODEL}", IN_FLIGHT, SECONDS, buffer.getvalue(), headers)
                if load.failed:
                    raise wrk.LoadError(f"{load.failed} of wrk's requests failed")
                rates["wrk"].append(load.rate * PIECE)
                begin = time.perf_counter()
                client.predict(bulk, model=MODEL)
                rates["client"].append(len(bulk) / (time.perf_counter() - begin))
    except (wrk.LoadError, local_service.ServiceError, FashionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    medians = {name: statistics.median(rounds) for name, rounds in rates.items()}
    ratio = medians["client"] / medians["wrk"]
    rows = [[name, f"{medians[name]:,.0f}", f"{min(rounds):,.0f}-{max(rounds):,.0f}"] for name, rounds in rates.items()]
    print(reporting.table(["by", "images/s", "range"], [*rows, ["client / wrk", f"{ratio:.2f}", ""]]))
    print(f"→ {reporting.write('client', {'images_per_second': rates, 'ratio_of_medians': ratio})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
