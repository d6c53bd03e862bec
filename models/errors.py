"""Errors of training, exporting and archiving. Each message states the fault and the remedy.

ModelsError
├── UnknownModelError   the catalog does not list the name
├── DataError           data is missing, damaged or not the published data
├── ArtifactError       a trained version is missing, damaged or unsuitable for the command
├── ExportError         TorchScript and its network give different answers
├── NetworkError        a network from elsewhere, its labels and its examples do not fit together
├── ArchiveError        a model is below its floor, incomplete, or refused by torch-model-archiver
└── SigningError        the private key that signs the index cannot be used
"""


class ModelsError(Exception):
    """Base of all errors that the command line prints without a traceback."""


class UnknownModelError(ModelsError):
    """The catalog does not list the name; the message gives the names that it lists."""


class DataError(ModelsError):
    """Data is missing, damaged or not the published data; the message names the file and the remedy."""


class ArtifactError(ModelsError):
    """A trained version is missing, damaged or unsuitable for the command."""


class ExportError(ModelsError):
    """TorchScript and its network give different answers; nothing is written."""


class NetworkError(ModelsError):
    """A network from elsewhere cannot be imported with these labels and examples; nothing is written."""


class ArchiveError(ModelsError):
    """A model is below its floor, incomplete, or refused by torch-model-archiver."""


class SigningError(ModelsError):
    """The private key that signs the model store's index cannot be used; the message names the file and the remedy."""
