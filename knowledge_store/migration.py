"""Makes a new store's tables, and brings an older store's up to date. Called once by `Store.open`."""

import os
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select, update

from knowledge_store.database import Database, translated
from knowledge_store.embed import DEFAULT, Embedder, embedder_named
from knowledge_store.errors import EmbedderMismatch, NotAStore, StoreUnavailable
from knowledge_store.filesystem import check_location
from knowledge_store.schema import SCHEMA_VERSION, counter, meta, metadata, pin, redaction


def prepare(database: Database) -> None:
    """Make `database` a store of this version.

    Raises:
        NotAStore: it is another program's.
        StoreUnavailable: it cannot be opened, or a newer version of this program made it.
    """
    if database.path is not None:
        check_location(database.path)
    with database.read() as connection:
        _check_encoding(database, connection)
        version = version_of(connection)
    if version is None:
        with database.write() as connection:
            if version_of(connection) is None:
                _create(connection)
    elif version > SCHEMA_VERSION:
        raise StoreUnavailable(
            f"the store has schema {version}, this program knows up to {SCHEMA_VERSION}; use a newer metabolism"
        )
    elif version < SCHEMA_VERSION:
        if database.path is not None:
            back_up(database, database.path.with_name(f"{database.path.name}.before-{SCHEMA_VERSION}"))
        migrate(database, SCHEMA_VERSION)


def _check_encoding(database: Database, connection: Connection) -> None:
    """Refuse a PostgreSQL database that cannot give every text back as it was written."""
    encoding = "UTF8" if database.sqlite else connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise StoreUnavailable(
            f"the database's encoding is {encoding}, which cannot hold every text; make one that can: "
            "CREATE DATABASE metabolism ENCODING 'UTF8' TEMPLATE template0"
        )


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from the schema before `number` to `number`, and the way back."""

    number: int
    up: Callable[[Connection], None]
    down: Callable[[Connection], None]


def _add_pins_and_tombstones(connection: Connection) -> None:
    metadata.create_all(connection, [pin, redaction])


def _drop_pins_and_tombstones(connection: Connection) -> None:
    metadata.drop_all(connection, [pin, redaction])


MIGRATIONS = (Migration(2, _add_pins_and_tombstones, _drop_pins_and_tombstones),)
"""Every step since the first schema, in order."""


def migrate(database: Database, to: int) -> None:
    """Bring the schema up or down to `to`, all in one transaction.

    Raises:
        StoreUnavailable: there is no way to that schema.
    """
    with database.write() as connection:
        now = version_of(connection)
        if now is None or not 1 <= to <= SCHEMA_VERSION:
            raise StoreUnavailable(f"there is no way from schema {now} to {to}")
        for step in MIGRATIONS:
            if now < step.number <= to:
                step.up(connection)
        for step in reversed(MIGRATIONS):
            if to < step.number <= now:
                step.down(connection)
        connection.execute(update(meta).where(meta.c.key == "schema").values(value=str(to)))


def back_up(database: Database, target: Path) -> None:
    """Copy an SQLite store, as of one moment, into the file `target`, while others read and write it.

    Raises:
        StoreUnavailable: there is such a file already, or the disk refused.
    """
    if target.exists():
        raise StoreUnavailable(f"{target.name} is there already; move it away, or name another file for the backup")
    draft = target.with_name(f"{target.name}.{os.urandom(4).hex()}.part")
    try:
        with translated(), closing(sqlite3.connect(draft)) as copy:
            database.sqlite_reader().backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without companions
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def index_place(database: Database) -> tuple[str, Path]:
    """Give the store's own name and the folder for its index: beside the file, or in this machine's cache."""
    with database.read() as connection:
        store = connection.scalar(select(meta.c.value).where(meta.c.key == "store")) or ""
    if database.path is not None:
        return store, database.path.with_name(database.path.name + ".index")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache")
    return store, cache / "metabolism" / store


def chosen_embedder(database: Database, wanted: Embedder | None) -> Embedder:
    """Give the embedder whose vectors the store has: `wanted`, if given, must be that one.

    Raises:
        EmbedderMismatch: the store was embedded by another.
    """
    with database.read() as connection:
        name = connection.scalar(select(meta.c.value).where(meta.c.key == "embedder")) or DEFAULT
    if wanted is None:
        return embedder_named(name)
    if wanted.name != name:
        raise EmbedderMismatch(
            f"the store's vectors are by {name}, not by {wanted.name}; to make them anew: "
            f"metabolism knowledge rebuild --embedder {wanted.name}"
        )
    return wanted


def version_of(connection: Connection) -> int | None:
    """Give the schema's number, or None where there is nothing yet.

    Raises:
        NotAStore: it is another program's database.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return None
    if "meta" not in tables or "fact" not in tables:
        raise NotAStore(
            "the database belongs to another program: it has tables, but not those of a knowledge store; name another"
        )
    version = connection.scalar(select(meta.c.value).where(meta.c.key == "schema"))
    if version is None:
        raise NotAStore("the database says nothing of its schema; restore a backup: metabolism knowledge restore FILE")
    return int(version)


def _create(connection: Connection) -> None:
    metadata.create_all(connection)
    connection.execute(insert(counter), [{"name": "fact", "next": 1}, {"name": "layer", "next": 1}])
    facts = {"schema": str(SCHEMA_VERSION), "store": uuid.uuid4().hex, "embedder": DEFAULT}
    connection.execute(insert(meta), [{"key": key, "value": value} for key, value in facts.items()])
