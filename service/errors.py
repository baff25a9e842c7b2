"""Everything the service raises on purpose, named by the boundary that was crossed.

ServiceError
├── SettingsError          an option, an environment variable or the settings file is wrong
├── CoreUnusable           a core's folder cannot be served: no tokenizer, no template, another protocol version
├── EngineError
│   ├── EngineUnavailable  the engine is down or went away; the same request may succeed later
│   └── EngineRefused      the engine will never accept this request
├── QuestionRefused        what was asked cannot be asked: empty, too long, of an unknown module
├── KeysUnusable           the file of keys cannot be read or written
├── KeyRefused             there is no such key, or its name is taken
├── Busy                   all places are taken and the queue is full; try again later
│   └── RateExceeded       a key made more requests, or has more running, than it may
├── ClientError
│   ├── ServerUnreachable  nobody answered at that address
│   └── ServerRefused      the server answered with an error; its status, code and parameter are attributes
└── PortTaken              another process listens at the address that was to be served
"""


class ServiceError(Exception):
    """Base of every error of this package; its text says what to do."""


class SettingsError(ServiceError):
    """An option, an environment variable or the settings file is wrong."""


class CoreUnusable(ServiceError):
    """A core's folder cannot be served."""


class EngineError(ServiceError):
    """Base of what an engine raises."""


class EngineUnavailable(EngineError):
    """The engine is down or went away; the same request may succeed later."""


class EngineRefused(EngineError):
    """The engine will never accept this request."""


class QuestionRefused(ServiceError):
    """What was asked cannot be asked; `param` names the part of the question that is wrong."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class KeysUnusable(ServiceError):
    """The file of keys cannot be read or written."""


class KeyRefused(ServiceError):
    """There is no such key, or its name is taken."""


class Busy(ServiceError):
    """All places are taken and the queue is full; `retry_after_s` says when to try again."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateExceeded(Busy):
    """A key made more requests, or has more running, than it may."""


class ClientError(ServiceError):
    """Base of what the client raises about a server elsewhere."""


class ServerUnreachable(ClientError):
    """Nobody answered at that address."""


class ServerRefused(ClientError):
    """The server answered with an error."""

    def __init__(self, message: str, *, status: int, code: str | None, param: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


class PortTaken(ServiceError):
    """Another process listens at the address that was to be served."""
