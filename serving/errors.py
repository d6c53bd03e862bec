"""What can go wrong with the local service, one class for each thing a caller may want to tell apart.

Each message says what is wrong and what to do; ``python -m serving`` prints it as it is and exits with 1::

    ServingError
    ├── SettingError        an environment variable has a value that cannot be used
    ├── ArchiveError        an archive is missing, damaged or not one of this project's
    ├── PortInUseError      another process listens on a port that the service needs
    ├── AlreadyRunningError the service runs already
    ├── NotRunningError     there is no service to change
    ├── BusyError           another command is changing the service
    ├── StartError          a process ended, or was not ready in time; nothing is left running
    ├── StateError          the file that says which versions are live cannot be read or written
    ├── RolloutError        a version may not go live, or did not; the live one is as it was
    ├── TokenError          TorchServe's tokens are not where they should be
    ├── UnreachableError    the management API does not answer
    └── RefusedError        the management API will not do what it was asked for

``CallError`` is what a caller of the gRPC bridge or the front door is told.
"""

from __future__ import annotations


class ServingError(Exception):
    """The base of all; its text is for the person who ran the command."""


class SettingError(ServingError):
    """An environment variable has a value that cannot be used."""


class ArchiveError(ServingError):
    """An archive is missing, damaged or not one of this project's."""


class PortInUseError(ServingError):
    """Another process listens on a port that the service needs."""


class AlreadyRunningError(ServingError):
    """The service runs already."""


class NotRunningError(ServingError):
    """There is no service to change."""


class BusyError(ServingError):
    """Another command is changing the service."""


class StartError(ServingError):
    """A process ended while starting, or was not ready in time; what had been started is stopped again."""


class StateError(ServingError):
    """The file that says which versions are live cannot be read or written."""


class RolloutError(ServingError):
    """A version may not go live, or did not; the live one is as it was."""


class TokenError(ServingError):
    """TorchServe's tokens are not where they should be."""


class UnreachableError(ServingError):
    """The management API does not answer."""


class RefusedError(ServingError):
    """The management API will not do what it was asked for."""


class CallError(Exception):
    """One call cannot be answered.

    Attributes:
        status: the HTTP status that says so.
        detail: what is wrong, in a sentence.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
