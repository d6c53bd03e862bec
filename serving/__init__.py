"""The service: TorchServe, nginx, and their helper processes, all children of one supervisor.

The command line is ``python -m serving serve|start|stop|restart|status``.
"""

from collections.abc import Callable

NAME = "fashion-serve"
# The one source of the version. tests/unit/project/test_version.py checks the files that repeat it.
VERSION = "0.2.0"

# Receives a line of progress each time the status changes.
Report = Callable[[str], None]
