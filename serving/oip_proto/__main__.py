"""Make the Python modules of this folder from its ``.proto`` file; needs ``grpcio-tools``."""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent.parent
PROTO = "serving/oip_proto/open_inference.proto"


def generate(out: Path) -> int:
    """Write the modules into ``out / "serving" / "oip_proto"``, which must exist.

    Returns:
        protoc's exit code.
    """
    status: int = protoc.main(["protoc", f"-I{ROOT}", f"--python_out={out}", f"--pyi_out={out}", PROTO])
    return status


if __name__ == "__main__":
    sys.exit(generate(ROOT))
