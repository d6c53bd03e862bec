"""Write TorchServe's class cache while an image is built: the frontend starts once, without models.

Java learns in that run which classes the frontend needs, and writes them down when it ends.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from serving import jvm, settings
from serving.errors import UnreachableError
from serving.management import Management
from serving.processes import wait_until

_TIMEOUT = 120.0


def main() -> int:
    """The exit code."""
    with tempfile.TemporaryDirectory() as folder:
        given = settings.read({"FASHION_RUN_DIR": folder, "FASHION_LOG_DIR": folder, "FASHION_MODEL_STORE": folder})
        cache = jvm.cache_path()
        cache.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(folder)
        command = jvm.command(given, jvm.write_config(given, []), scratch, record=cache)
        child = subprocess.Popen(command, env=jvm.environment(scratch), cwd=folder)
        management = Management(given.management.url)

        def answers() -> bool:
            try:
                return management.models() == []
            except UnreachableError:
                return False

        answered = wait_until(lambda: answers() or child.poll() is not None, _TIMEOUT)
        child.terminate()
        child.wait(_TIMEOUT)
    if not answered or not cache.is_file():
        print("error: Java wrote no class cache", file=sys.stderr)
        return 1
    print(f"{cache}: {cache.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
