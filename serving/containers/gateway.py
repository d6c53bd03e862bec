"""The gateway in a container: write nginx's configuration, and become nginx.

python -m serving.containers.gateway
"""

from __future__ import annotations

import os
import sys

from serving import gateway, settings
from serving.errors import ServingError


def main() -> int:
    """Become nginx; returns an exit code only where that fails."""
    try:
        given = settings.read()
        nginx = gateway.find_nginx()
        if nginx is None:
            raise ServingError(gateway.MISSING)
        config = gateway.write_config(given, given.run)
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    os.execv(nginx, gateway.command(nginx, config))
    raise AssertionError("nginx has taken this process's place")


if __name__ == "__main__":
    sys.exit(main())
