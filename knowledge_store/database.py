"""The database under a store: SQLite in a file, or PostgreSQL. The only file that knows which.

Reads go through a raw connection held by each thread, in autocommit: what a generation shows never changes, so a read
needs no transaction. Writes are transactions under one lock, process-wide by the database's own means.
Not here: tables (``schema.py``), what is read and written (everybody else).
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.expression import ClauseElement

from knowledge_store.errors import (
    KnowledgeError,
    NotAStore,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

LOCK_WAIT_S = 60.0
_ADVISORY_LOCK = 0x6D65_7461  # any number that no other program on the server takes for itself
_MMAP_BYTES = 2**30
_CACHE_KIB = 65_536
_READING = (
    f"busy_timeout={int(LOCK_WAIT_S * 1000)}",
    f"mmap_size={_MMAP_BYTES}",
    f"cache_size=-{_CACHE_KIB}",
    "temp_store=MEMORY",
)
_WRITING = (*_READING, "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON")


class Cursor(Protocol):
    """What a raw execution gives."""

    def fetchall(self) -> list[Any]:
        """Give all rows."""
        ...

    def fetchone(self) -> Any:
        """Give the next row, or None."""
        ...


class RawConnection(Protocol):
    """What sqlite3 and psycopg connections have in common."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Database:
    """An open database."""

    def __init__(self, location: str | Path) -> None:
        self.url = make_url(str(location) if "://" in str(location) else f"sqlite:///{Path(location).absolute()}")
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.path = Path(self.url.database) if self.sqlite and self.url.database else None
        self.engine = _sqlite_engine(self.url, self.path) if self.sqlite else _postgres_engine(self.url)
        self._lock = threading.RLock()
        self._local = threading.local()
        self._held: list[RawConnection] = []
        self._closed = False
        self.driver_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error

    def reader(self) -> RawConnection:
        """Give this thread's connection for reading, in autocommit."""
        try:
            raw: Any = self._local.connection
        except AttributeError:
            return self._connect()
        if not self.sqlite and raw.closed:  # the server went away; it may be back, or another may have its place
            self.release()
            return self._connect()
        return raw  # type: ignore[no-any-return]

    def _connect(self) -> RawConnection:
        if self._closed:
            raise StoreUnavailable("the store is closed; open it again")
        with translated(self.driver_error):
            # Out of the pool and ours for good: the thread keeps it until the store is closed.
            pooled = self.engine.raw_connection()
            raw: Any = pooled.driver_connection
            pooled.detach()
            if not self.sqlite:
                raw.autocommit = True
        self._local.connection = raw
        self._held.append(raw)
        return raw  # type: ignore[no-any-return]

    def sqlite_reader(self) -> sqlite3.Connection:
        """Give this thread's connection as what it is on SQLite."""
        raw: Any = self.reader()
        assert isinstance(raw, sqlite3.Connection), "only SQLite has files to copy"
        return raw

    def release(self) -> None:
        """Close this thread's connection: for a thread that ends before the store does."""
        raw = self._local.__dict__.pop("connection", None)
        if raw is not None:
            self._held.remove(raw)
            raw.close()

    def compile(self, statement: ClauseElement, *parameters: str) -> str:
        """Make SQL text of `statement` for `reader().execute`, which takes `parameters` in this order."""
        compiled: Any = statement.compile(dialect=self.engine.dialect)
        assert tuple(compiled.positiontup) == parameters, f"{compiled.positiontup} are not {parameters}"
        return str(compiled)

    @contextmanager
    def write(self, *, rehearse: bool = False) -> Iterator[Connection]:
        """Hold the write lock for one transaction; an exception rolls it back, and so does a rehearsal's end.

        Raises:
            StoreUnavailable: the database did not do it; nothing was changed.
        """
        with self._lock, translated(self.driver_error):
            if self._closed:
                raise StoreUnavailable("the store is closed; open it again")
            with self.engine.connect() as connection, connection.begin() as transaction:
                if not self.sqlite:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
                yield connection
                if rehearse:
                    transaction.rollback()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Hold a consistent reading transaction, for reads that are too rare or too long for `reader`."""
        with translated(self.driver_error), self.engine.connect() as connection:
            if not self.sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            connection.info["deferred"] = True
            yield connection

    def scrub(self) -> None:
        """Overwrite what was deleted, so that the bytes are gone from the files, as far as the database allows."""
        if self.sqlite:
            with translated(self.driver_error):
                self.reader().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._closed = True
        held, self._held = self._held, []
        for raw in held:
            raw.close()
        self._local = threading.local()
        self.engine.dispose()


def _sqlite_engine(url: URL, path: Path | None) -> Engine:
    still = path is not None and path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
    pragmas = _READING if still else _WRITING

    def connect() -> sqlite3.Connection:
        target, mode = str(path or ":memory:"), "rwc"
        if still:
            # Without a log beside it the file is all there is; SQLite need not look for changes, nor write to share it.
            log = Path(f"{target}-wal")
            mode = "ro" if log.exists() and log.stat().st_size else "ro&immutable=1"
        return sqlite3.connect(
            f"file:{quote(target)}?mode={mode}" if path else target,
            uri=path is not None,
            check_same_thread=False,
            timeout=LOCK_WAIT_S,
            cached_statements=256,
        )

    engine = create_engine(url, poolclass=NullPool, creator=connect)

    @event.listens_for(engine, "connect")
    def _prepare(raw: sqlite3.Connection, _: object) -> None:
        raw.isolation_level = None  # transactions begin where we say so, below
        for pragma in pragmas:
            raw.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that reads and then writes fails at once when another wrote between.
        connection.exec_driver_sql("BEGIN" if connection.info.pop("deferred", False) else "BEGIN IMMEDIATE")

    return engine


def _postgres_engine(url: Any) -> Engine:
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    try:
        # Named, for a database without an encoding would have the driver give bytes for text.
        return create_engine(url, paramstyle="format", pool_pre_ping=True, connect_args={"client_encoding": "utf8"})
    except ImportError as error:
        raise StoreUnavailable(
            "PostgreSQL needs the driver psycopg: install the extra with pip install 'digital-metabolism[postgres]'"
        ) from error


@contextmanager
def translated(driver_error: type[Exception] = sqlite3.Error) -> Iterator[None]:
    """Turn the database's errors into ours."""
    try:
        yield
    except exc.DBAPIError as error:
        raise translate(error.orig or error) from error
    except (exc.SQLAlchemyError, driver_error) as error:
        raise translate(error) from error
    except OSError as error:
        raise StoreUnavailable(f"the disk refused: {error}") from error


def translate(error: BaseException) -> KnowledgeError:
    """Say what a database error means and what to do about it."""
    text = str(error).strip()
    low = text.lower()
    if "disk is full" in low or "disk full" in low or "no space left" in low:
        return StoreFull(f"the disk is full ({text}); the last generation is intact: free some space and try again")
    if "readonly" in low or "read-only" in low:
        return StoreReadOnly(f"the store cannot be written here ({text}); make its file and folder writable")
    if "not a database" in low:
        return NotAStore("the file is not a knowledge store; name another file, or move this one away")
    if "malformed" in low or "corrupt" in low:
        return StoreUnavailable(f"the database is damaged ({text}); restore it: metabolism knowledge restore BACKUP")
    if "locked" in low:
        return StoreUnavailable(f"another writer kept the store locked for {LOCK_WAIT_S:.0f} s; try again")
    if "unable to open" in low:
        return StoreUnavailable(
            f"the store's file cannot be opened ({text}); does its folder exist, and may you write it?"
        )
    return StoreUnavailable(f"the database failed: {text}")
