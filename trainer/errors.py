"""Everything the trainer raises on purpose. Each text says what happened, what is safe, and what to do.

TrainerError
├── ConfigError         (also ValueError) a run file that cannot be used: a misspelt key, values that contradict
├── FactsError          (also ValueError) a file of facts or phrasings that cannot be read, or contradicts itself
├── StreamError         (also ValueError) text for a stream that cannot be read, or does not fit
├── FeedError           a process that prepares batches was ended from outside
├── BaseModelError      a base that cannot be loaded or cannot carry the protocol
├── CheckpointError     a checkpoint that cannot be written or is damaged
├── RunExistsError      a folder that holds a run already; nothing was overwritten
├── CollapseError       the watchdog stopped a run; the last checkpoint is named
├── RetentionError      a run left more facts than were allowed; its core is named
├── StoppedError        a run was stopped from outside before it had a core; the way on is named
├── NotFiniteError      a loss or a gradient became NaN or infinite
├── OutOfMemoryError    the device's memory is spent; says what to lower
└── ArtifactError       a core folder that cannot be written or read
"""


class TrainerError(Exception):
    """Base of every error of this package."""


class ConfigError(TrainerError, ValueError):
    """A run file cannot be used."""


class FactsError(TrainerError, ValueError):
    """Facts or phrasings cannot be read, or contradict themselves."""


class StreamError(TrainerError, ValueError):
    """Text for a stream cannot be read, or does not fit."""


class FeedError(TrainerError):
    """A process that prepares batches was ended from outside."""


class WorkerError(TrainerError):
    """A process that attacks a core was ended from outside."""


class BaseModelError(TrainerError):
    """The base cannot be loaded, or cannot carry the protocol."""


class CheckpointError(TrainerError):
    """A checkpoint cannot be written, or is damaged."""


class RunExistsError(TrainerError):
    """The folder holds a run already."""


class CollapseError(TrainerError):
    """The watchdog stopped the run."""


class RetentionError(TrainerError):
    """More facts are left in a core than were allowed; it stays for inspection."""


class StoppedError(TrainerError):
    """A run was stopped before it had a core; nothing is lost."""


class NotFiniteError(TrainerError):
    """A loss or a gradient is NaN or infinite."""


class OutOfMemoryError(TrainerError):
    """The device's memory is spent."""


class ArtifactError(TrainerError):
    """A core folder cannot be written or read."""
