"""What training, exporting and archiving refuse, in one line each that says what to do.

ModelsError
├── UnknownModelError   a name that the catalog does not list
├── DataError           data that is missing, damaged or not what it claims to be
├── ArtifactError       a trained version that is missing, damaged or not fit for what is asked
├── ExportError         TorchScript that answers otherwise than its network
└── ArchiveError        a model that must not be packed, or that torch-model-archiver refuses
"""


class ModelsError(Exception):
    """Base of all errors that the command line prints without a traceback."""


class UnknownModelError(ModelsError):
    """A name that the catalog does not list; the message lists those that it does."""


class DataError(ModelsError):
    """Data that is missing, damaged or not what it claims to be; the message names the file and the remedy."""


class ArtifactError(ModelsError):
    """A trained version is missing, damaged or not fit for what is asked."""


class ExportError(ModelsError):
    """TorchScript and its network disagree; nothing is written."""


class ArchiveError(ModelsError):
    """A model is below its floor, incomplete, or refused by torch-model-archiver."""
