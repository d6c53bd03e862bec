"""Client of fashion-serve: predictions, explanations and models over HTTP.

Example:
    >>> from fashion_client import FashionClient
    >>> with FashionClient("http://127.0.0.1:8000") as client:
    ...     client.predict("shoe.png").label
    'Ankle boot'
"""

from fashion_client.client import FashionClient
from fashion_client.errors import (
    AnswerError,
    AnswerTimeoutError,
    BusyError,
    ConnectError,
    FashionError,
    InputError,
    NotAllowedError,
    NotFoundError,
    Problem,
    ProblemError,
    RefusedError,
    ServiceError,
    TlsError,
)
from fashion_client.results import Explanation, Model, Prediction, Predictions, Tensor

__all__ = [
    "AnswerError",
    "AnswerTimeoutError",
    "BusyError",
    "ConnectError",
    "Explanation",
    "FashionClient",
    "FashionError",
    "InputError",
    "Model",
    "NotAllowedError",
    "NotFoundError",
    "Prediction",
    "Predictions",
    "Problem",
    "ProblemError",
    "RefusedError",
    "ServiceError",
    "Tensor",
    "TlsError",
]
