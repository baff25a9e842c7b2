"""Makes a new store's tables, and brings an older store's up to date. Called once by `Store.open`."""

import os
import uuid
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select

from knowledge_store.database import Database
from knowledge_store.embed import DEFAULT, Embedder, embedder_named
from knowledge_store.errors import EmbedderMismatch, NotAStore, StoreUnavailable
from knowledge_store.schema import SCHEMA_VERSION, counter, meta, metadata


def prepare(database: Database) -> None:
    """Make `database` a store of this version.

    Raises:
        NotAStore: it is another program's.
        StoreUnavailable: it cannot be opened, or a newer version of this program made it.
    """
    if database.path is not None and not database.path.parent.is_dir():
        raise StoreUnavailable(f"there is no folder {os.fspath(database.path.parent)!r} for the store; make it first")
    with database.read() as connection:
        tables = set(inspect(connection).get_table_names())
        version = _version(connection, tables)
    if version is None:
        with database.write() as connection:
            if _version(connection, set(inspect(connection).get_table_names())) is None:
                _create(connection)
    elif version > SCHEMA_VERSION:
        raise StoreUnavailable(
            f"the store has schema {version}, this program knows up to {SCHEMA_VERSION}; use a newer metabolism"
        )


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


def _version(connection: Connection, tables: set[str]) -> int | None:
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
