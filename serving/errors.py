"""The service's errors.

Each message states the problem and the remedy; ``python -m serving`` prints the message and exits with 1::

    ServingError
    ├── SettingError        an environment variable has an invalid value
    ├── ArchiveError        an archive is missing, damaged, or not one of this project's
    ├── PortInUseError      another process listens on a port that the service needs
    ├── AlreadyRunningError the service is already running
    ├── NotRunningError     the service is not running
    ├── BusyError           another command is changing the service
    ├── StartError          a process ended, or was not ready in time; nothing is left running
    ├── StateError          run/live.json, the list of live versions, cannot be read or written
    ├── RolloutError        a version did not go live; the live version is unchanged
    ├── TokenError          the file of TorchServe's tokens is missing or invalid
    ├── UnreachableError    the management API does not answer
    └── RefusedError        the management API refused a request

``CallError`` is separate: the gRPC bridge and the front door send it to a caller.
"""

from __future__ import annotations


class ServingError(Exception):
    """The base class; the message is for the person who ran the command."""


class SettingError(ServingError):
    """An environment variable has an invalid value."""


class ArchiveError(ServingError):
    """An archive is missing, damaged, or not one of this project's."""


class PortInUseError(ServingError):
    """Another process listens on a port that the service needs."""


class AlreadyRunningError(ServingError):
    """The service is already running."""


class NotRunningError(ServingError):
    """The service is not running."""


class BusyError(ServingError):
    """Another command is changing the service."""


class StartError(ServingError):
    """A process ended while starting, or was not ready in time; nothing is left running."""


class StateError(ServingError):
    """``run/live.json``, the list of live versions, cannot be read or written."""


class RolloutError(ServingError):
    """A version did not go live; the live version is unchanged."""


class TokenError(ServingError):
    """The file of TorchServe's tokens is missing or invalid."""


class UnreachableError(ServingError):
    """The management API does not answer."""


class RefusedError(ServingError):
    """The management API refused a request."""


class CallError(Exception):
    """One call cannot be answered.

    Attributes:
        status: the HTTP status of the answer.
        detail: the problem, in a sentence.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
