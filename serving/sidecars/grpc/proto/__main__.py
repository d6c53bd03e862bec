"""Generate the Python modules of this folder from its ``.proto`` file; needs ``grpcio-tools``."""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

from serving.settings import ROOT

PROTO = "serving/sidecars/grpc/proto/open_inference.proto"


def generate(out: Path) -> int:
    """Write the modules into the folder of ``PROTO`` under ``out``, which must exist.

    Returns:
        protoc's exit code.
    """
    status: int = protoc.main(["protoc", f"-I{ROOT}", f"--python_out={out}", f"--pyi_out={out}", PROTO])
    return status


if __name__ == "__main__":
    sys.exit(generate(ROOT))
