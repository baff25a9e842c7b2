"""Everything the service raises on purpose, named by the boundary that was crossed.

    ServiceError
    ├── SettingsError         an option, an environment variable or the settings file is wrong
    ├── CoreError             a model folder cannot be served: no tokenizer, another protocol version, no such folder
    ├── EngineError
    │   ├── EngineUnavailable the engine does not answer; the next try may succeed
    │   └── EngineRefused     the engine answered that it will not do this
    ├── QuestionError         what was asked cannot be asked: too long, no user's message, an unknown module
    ├── KeyError_             (see ``security.py``)
    └── ApiError              a refusal that already knows its HTTP status (``api`` only)
"""
