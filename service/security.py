"""Who may do what: keys with scopes, kept as hashes in one file that the command line and the server share.

A key is 256 random bits, so one SHA-256 is a hash that cannot be turned back. The file is read again when it changed:
a key that was revoked on the command line stops working in a running server at once. Rates are ``limit.py``'s matter.
"""

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import KeyRefused, KeysUnusable

_MARK = "dm"


class Scope(StrEnum):
    """What a key opens. `ADMIN` opens everything."""

    INFER = "infer"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as the server knows it: everything but the key."""

    key_id: str
    name: str
    scopes: frozenset[Scope]
    digest: str
    created: datetime
    revoked: datetime | None = None
    requests_per_minute: int | None = None
    concurrent: int | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether the key opens `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key_id: str
    name: str
    scopes: list[Scope] = Field(min_length=1)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: datetime
    revoked: datetime | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)
    concurrent: int | None = Field(default=None, ge=1)


class _Sheet(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    keys: list[_Row] = []


class KeyRing:
    """The file of keys. Safe for several processes: writers take a lock and replace the file whole."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}

    def find(self, token: str) -> Key | None:
        """Give the key that `token` is, or None where there is none or it was revoked.

        Raises:
            KeysUnusable: the file cannot be read.
        """
        self._refresh()
        key = self._keys.get(_digest(token))
        return None if key is None or key.revoked is not None else key

    def all_keys(self) -> tuple[Key, ...]:
        """Give every key ever made, oldest first.

        Raises:
            KeysUnusable: the file cannot be read.
        """
        self._refresh()
        return tuple(sorted(self._keys.values(), key=lambda key: key.created))

    def create(
        self,
        name: str,
        scopes: Iterable[Scope],
        *,
        requests_per_minute: int | None = None,
        concurrent: int | None = None,
    ) -> tuple[Key, str]:
        """Make a key; give it and its token, which is kept nowhere.

        Raises:
            KeyRefused: a key in use has this name.
            KeysUnusable: the file cannot be written.
        """
        token = f"{_MARK}-{secrets.token_urlsafe(32)}"
        key = Key(
            key_id=secrets.token_hex(4),
            name=name,
            scopes=frozenset(scopes),
            digest=_digest(token),
            created=datetime.now(UTC),
            requests_per_minute=requests_per_minute,
            concurrent=concurrent,
        )
        with self._writing() as keys:
            if any(other.name == name and other.revoked is None for other in keys.values()):
                raise KeyRefused(f"there is a key called {name!r} already; revoke it first, or choose another name")
            keys[key.digest] = key
        return key, token

    def revoke(self, name_or_id: str) -> Key:
        """Make a key useless from now on.

        Raises:
            KeyRefused: no key in use has this name or id.
            KeysUnusable: the file cannot be written.
        """
        with self._writing() as keys:
            for key in keys.values():
                if name_or_id in (key.name, key.key_id) and key.revoked is None:
                    revoked = keys[key.digest] = replace(key, revoked=datetime.now(UTC))
                    return revoked
            names = ", ".join(sorted(key.name for key in keys.values() if key.revoked is None)) or "none"
            raise KeyRefused(f"no key in use is called {name_or_id!r}; in use are: {names}")

    def _refresh(self) -> None:
        try:
            state = self.file.stat()
            stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
            if stamp != self._stamp:
                self._keys = _read(self.file)
                self._stamp = stamp
        except FileNotFoundError:
            self._keys, self._stamp = {}, None
        except OSError as error:
            raise KeysUnusable(f"the file of keys {self.file} cannot be read: {error.strerror}") from error

    @contextmanager
    def _writing(self) -> Iterator[dict[str, Key]]:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.with_name(self.file.name + ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                keys = _read(self.file) if self.file.exists() else {}
                yield keys
                _write(self.file, keys.values())
        except OSError as error:
            raise KeysUnusable(f"the file of keys {self.file} cannot be written: {error.strerror}") from error


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _read(file: Path) -> dict[str, Key]:
    try:
        sheet = _Sheet.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise KeysUnusable(f"{file} is not a file of keys: {error.errors()[0]['msg']}") from error
    return {row.digest: Key(**{**dict(row), "scopes": frozenset(row.scopes)}) for row in sheet.keys}


def _write(file: Path, keys: Iterable[Key]) -> None:
    rows = [
        _Row(
            key_id=key.key_id,
            name=key.name,
            scopes=sorted(key.scopes),
            digest=key.digest,
            created=key.created,
            revoked=key.revoked,
            requests_per_minute=key.requests_per_minute,
            concurrent=key.concurrent,
        )
        for key in keys
    ]
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(_Sheet(keys=rows).model_dump(mode="json"), stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
