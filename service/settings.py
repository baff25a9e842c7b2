"""Every setting of the service, read once: options given, then METABOLISM_* variables, then one TOML file.

All three use the same names: ``--port``, ``METABOLISM_PORT``, ``port = 8000``. Called by ``command.py``; nothing else
reads the environment, and nothing is read at import.
"""

import ipaddress
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from service.detect.choice import Detectors
from service.errors import SettingsError

PREFIX = "METABOLISM_"
DEFAULT_CORE = Path("models/demo-core")
DEFAULT_STORE = "knowledge.sqlite"
DEFAULT_KEYS = Path("var/keys.json")


class Settings(BaseSettings):
    """What the service can be told. Unknown names in the file are refused."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    host: str = Field(default="127.0.0.1", description="Address to listen at.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen at; 0 takes a free one.")
    core: Path = Field(default=DEFAULT_CORE, description="Folder of the core to serve.")
    engine: str = Field(default="auto", description="auto, vllm, embedded, or the URL of a vLLM server.")
    engine_wait_s: float = Field(
        default=0.0, ge=0, description="How long the start waits for an engine given by its URL."
    )
    detectors: Detectors = Field(
        default="call",
        description="Which steps get a fact: call (those where the core asks), or besides those that state another "
        "value than the memory (claim), that the core is not sure of (uncertainty), or both (union).",
    )
    store: str = Field(default=DEFAULT_STORE, description="File or SQLAlchemy URL of the knowledge store.")

    keys: Path | None = Field(
        default=None, description="File of keys. Made, with a first admin key, where there is none."
    )
    no_auth: bool = Field(default=False, description="Ask for no keys. Only on a loopback address.")
    guard_watch: bool = Field(default=False, description="Ask for a key of scope read on /health and /metrics too.")
    audit: Path | None = Field(
        default=None, description="File that gets a line for each write; beside the keys by default."
    )
    key_requests_per_minute: int = Field(default=600, ge=1, description="Requests a minute that a key may make.")
    key_concurrent: int = Field(default=64, ge=1, description="Requests that a key may have running at a time.")

    concurrent: int = Field(default=64, ge=1, description="Answers made at a time.")
    waiting: int = Field(default=1024, ge=0, description="Questions that may wait for a place; more get 503 at once.")
    wait_s: float = Field(default=30.0, gt=0, description="How long a question waits for a place before it gets 503.")
    lookups: int = Field(default=16, ge=0, description="Most lookups of an answer; a request may ask for fewer.")
    tokens: int = Field(default=1024, ge=1, description="Most tokens of an answer; a request may ask for fewer.")
    timeout_s: float = Field(default=60.0, gt=0, description="Longest time for an answer; a request may ask for less.")
    max_question_bytes: int = Field(default=512 * 1024, ge=1024, description="Largest body of a question.")
    max_update_bytes: int = Field(default=256 * 1024 * 1024, ge=1024, description="Largest body of /update_knowledge.")
    keep_alive_s: float = Field(default=10.0, gt=0, description="Silence in a stream after which a comment is sent.")
    drain_s: float = Field(
        default=60.0, ge=0, description="How long a replaced core, or a stopping server, may finish."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="auto: text on a terminal, else JSON."
    )
    log_values: bool = Field(default=False, description="Log questions, answers and fact values too.")
    otel: bool = Field(
        default=False, description="Export OpenTelemetry traces by OTLP over HTTP, set up by the OTEL_* variables."
    )

    @classmethod
    def read(cls, given: Mapping[str, Any], *, file: Path | None = None) -> Self:
        """Read all settings; a value of None in `given` counts as not given.

        Raises:
            SettingsError: a value is wrong, or the file is missing, is no TOML or holds an unknown name.
        """
        if file is not None:
            _check_toml(file)

        class WithFile(cls):  # type: ignore[valid-type, misc]
            @classmethod
            def settings_customise_sources(
                cls,
                settings_cls: type[BaseSettings],
                init_settings: PydanticBaseSettingsSource,
                env_settings: PydanticBaseSettingsSource,
                dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
                file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                toml = () if file is None else (TomlConfigSettingsSource(settings_cls, file),)
                return (init_settings, env_settings, *toml)

        try:
            read: Self = WithFile(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            raise SettingsError(_explain(error)) from error
        return read

    @model_validator(mode="after")
    def _never_open_to_the_world(self) -> Self:
        if self.no_auth and self.keys is not None:
            raise ValueError("--no-auth and --keys exclude each other; give one")
        if self.no_auth and not self.on_loopback:
            raise ValueError(
                f"--no-auth is for local development only, and {self.host} is no loopback address; "
                f"give --keys FILE, or listen at 127.0.0.1"
            )
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def keys_file(self) -> Path | None:
        """The file of keys that holds; None where the server asks for none.

        Without a word about keys a server on a loopback address asks for none, unless the default file exists; any
        other server uses the default file.
        """
        if self.no_auth:
            return None
        if self.keys is None and self.on_loopback and not DEFAULT_KEYS.exists():
            return None
        return self.keys or DEFAULT_KEYS

    @property
    def audit_file(self) -> Path:
        """Where writes are logged."""
        return self.audit or (self.keys_file or DEFAULT_KEYS).with_name("audit.jsonl")


def _check_toml(file: Path) -> None:
    try:
        tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"the settings file {file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"the settings file {file} is not TOML: {error}") from error


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            text = "no such setting"
        option = f"--{name.replace('_', '-')} ({PREFIX}{name.upper()}): " if name else ""
        lines.append(option + text)
    return "; ".join(lines)
