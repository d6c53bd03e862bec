"""The local service: TorchServe's frontend and what stands beside it, started, watched and stopped together.

``python -m serving start|stop|restart|status|prepare``; the steps of a start are in ``serving.service``.
"""
