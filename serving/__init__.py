"""The service: TorchServe's frontend and what stands beside it, started, watched and stopped together.

``python -m serving serve|start|stop|restart|status``; what runs is the child of one supervisor.
"""

from collections.abc import Callable

NAME = "fashion-serve"
VERSION = "0.1.0"

# Told what is going on, whenever that changes.
Report = Callable[[str], None]
