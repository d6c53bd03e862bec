"""The service: TorchServe's frontend and what stands beside it, started, watched and stopped together.

``python -m serving serve|start|stop|restart|status``; what runs is the child of one supervisor.
"""

from collections.abc import Callable

NAME = "fashion-serve"
# The one source of the version. tests/unit/project/test_version.py checks the files that repeat it.
VERSION = "0.2.0"

# Told what is going on, whenever that changes.
Report = Callable[[str], None]
