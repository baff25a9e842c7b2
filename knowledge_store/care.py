"""Care for a store: backup and restore, verification, statistics, another embedder.

Not here: migrations (``migration.py``), compaction (``erasure.py``).
"""

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, text, update

from knowledge_store import migration
from knowledge_store.database import Database, translated
from knowledge_store.embed import Embedder
from knowledge_store.errors import NotAStore, StoreDamaged, StoreUnavailable
from knowledge_store.index import load, read_manifest
from knowledge_store.key import hash64, normalise
from knowledge_store.row import row_fact
from knowledge_store.schema import OPEN, fact, generation, layer, meta, metadata, module, name, relation, state
from knowledge_store.store import Store
from knowledge_store.timeline import oldest_kept

_NAMED = 100
_BATCH = 5_000


@dataclass(frozen=True, slots=True)
class Statistics:
    """How much is in a store. `facts` counts what the head shows, `rows` what all generations keep."""

    generation: int
    oldest_generation: int
    modules: int
    facts: int
    rows: int
    subjects: int
    relations: int
    bytes: int
    index_subjects: int
    index_exact: bool
    index_recall: float
    index_current: bool
    embedder: str

    def document(self) -> dict[str, Any]:
        """Give the statistics as JSON."""
        return asdict(self)


def gather_statistics(store: Store) -> Statistics:
    """Count what is in the store."""
    index = store.index_status()
    with store.database.read() as connection:

        def count(table: Any) -> int:
            return int(connection.scalar(select(func.count()).select_from(table)) or 0)

        states = select(func.count(), func.sum(state.c.facts)).where(state.c.to_gen == OPEN)
        modules, facts = connection.execute(states).one()
        return Statistics(
            generation=connection.scalar(select(func.max(generation.c.number))) or 0,
            oldest_generation=oldest_kept(connection),
            modules=modules,
            facts=int(facts or 0),
            rows=count(fact),
            subjects=count(name),
            relations=count(relation),
            bytes=_size(store.database, connection),
            index_subjects=index.count,
            index_exact=index.exact,
            index_recall=index.recall,
            index_current=index.current,
            embedder=connection.scalar(select(meta.c.value).where(meta.c.key == "embedder")) or "",
        )


def _size(database: Database, connection: Connection) -> int:
    if database.path is None:
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)
    return sum(
        path.stat().st_size
        for suffix in ("", "-wal")
        if (path := database.path.with_name(database.path.name + suffix)).exists()
    )


def verify(store: Store) -> tuple[str, ...]:
    """Compare everything with everything: rows with their hashes and keys, modules with rows, the index with both.

    Gives the first hundred faults, as sentences; none means that all is well.
    """
    found: list[str] = []
    with store.database.read() as connection:
        for fault in _faults(store, connection):
            found.append(fault)
            if len(found) == _NAMED:
                break
    return tuple(found)


def _faults(store: Store, connection: Connection) -> Iterator[str]:
    if store.database.sqlite:
        for (line,) in connection.exec_driver_sql(f"PRAGMA integrity_check({_NAMED})"):
            if line != "ok":
                yield f"the database file: {line}"
    yield from _row_faults(connection)
    yield from _state_faults(connection)
    yield from _index_faults(store)


def _row_faults(connection: Connection) -> Iterator[str]:
    modules = {row[0]: row[1] for row in connection.execute(select(state.c.layer_id, module.c.name).join(module))}
    relations = {row[0]: row[1] for row in connection.execute(select(relation.c.id, relation.c.key))}
    unpublished = set(connection.scalars(select(layer.c.id).where(~layer.c.published)))
    rows = connection.execute(select(fact).order_by(fact.c.id).execution_options(yield_per=_BATCH))
    for row in rows:
        if row.layer_id in unpublished:
            continue  # an import on its way
        named = f"row {row.id} («{row.subject[:40]} | {row.relation[:40]}»)"
        owner = modules.get(row.layer_id)
        if owner is None:
            yield f"{named} is in a layer of no module; metabolism knowledge compact takes it away"
        elif row_fact(row, owner).digest() != bytes(row.digest):
            yield f"{named} of module {owner!r} is not what was stored: its hash differs"
        keys = (hash64(normalise(row.subject)), relations.get(row.relation_id), hash64(normalise(row.value)))
        if keys != (row.subject64, normalise(row.relation), row.value64):
            yield f"{named} stands under keys that are not its own"


def _state_faults(connection: Connection) -> Iterator[str]:
    open_rows = (
        select(fact.c.layer_id, func.count().label("held")).where(fact.c.to_gen == OPEN).group_by(fact.c.layer_id)
    ).subquery()
    held = func.coalesce(open_rows.c.held, 0)
    states = (
        select(module.c.name, state.c.facts, held)
        .join(state, state.c.module_id == module.c.id)
        .outerjoin(open_rows, open_rows.c.layer_id == state.c.layer_id)
        .where(state.c.to_gen == OPEN, state.c.facts != held)
    )
    for name_, told, counted in connection.execute(states):
        yield f"module {name_!r} says that it holds {told:,} facts and holds {counted:,}"


def _index_faults(store: Store) -> Iterator[str]:
    folder = store.indexer.folder
    manifest = read_manifest(folder)
    if manifest is not None:
        try:
            load(folder, manifest)
        except StoreDamaged as error:
            yield f"the index: {error}"
    fault = store.index().fault
    if fault is not None:
        yield f"the index: {fault}"
    lacking = store.indexer.lacking()
    if lacking:
        yield f"the index lacks {lacking:,} subjects that the store has; metabolism knowledge rebuild"


def back_up(store: Store, target: Path) -> None:
    """Copy the store as of one moment into the file `target`, while others read and write it.

    Of a PostgreSQL store, too, the backup is an SQLite file, and is itself a store that can be opened.

    Raises:
        StoreUnavailable: there is such a file already, or the disk refused.
    """
    if store.database.sqlite:
        migration.back_up(store.database, target)
        return
    if target.exists():
        raise StoreUnavailable(f"{target.name} is there already; move it away, or name another file for the backup")
    draft = target.with_name(f"{target.name}.{os.urandom(4).hex()}.part")
    copy = Database(draft)
    try:
        with store.database.read() as source, copy.write() as connection:
            _copy_tables(source, connection)
        copy.close()
        with translated(), closing(sqlite3.connect(draft)) as whole:
            whole.execute("PRAGMA journal_mode=DELETE")
        draft.replace(target)
    finally:
        copy.close()
        draft.unlink(missing_ok=True)


def restore(store: Store, backup: Path) -> int:
    """Put the backup's content in place of the store's, in one transaction; gives the head.

    Who reads meanwhile sees the old content or the new one. Open stores notice with their next request.

    Raises:
        NotAStore: `backup` is no backup of a store.
    """
    if not backup.is_file():
        raise NotAStore(f"there is no backup {backup.name!r}")
    source = Database(backup)
    try:
        with source.read() as connection:
            if migration.version_of(connection) is None:
                raise NotAStore(f"{backup.name} is no backup of a knowledge store: it is empty")
        migration.prepare(source)
        with source.read() as old, store.database.write() as new:
            metadata.drop_all(new)
            _copy_tables(old, new)
            # Another identity, so that open stores forget what they remember, and the index is made anew.
            new.execute(update(meta).where(meta.c.key == "store").values(value=uuid.uuid4().hex))
    finally:
        source.close()
    return store.head


def _copy_tables(source: Connection, target: Connection) -> None:
    metadata.create_all(target)
    for table in metadata.sorted_tables:
        rows = source.execution_options(yield_per=_BATCH).execute(select(table))
        for part in rows.partitions(_BATCH):
            target.execute(insert(table), [dict(row._mapping) for row in part])


def re_embed(store: Store, embedder: Embedder) -> None:
    """Let the store's vectors be by `embedder` from now on. Open it again to use them."""
    with store.database.write() as connection:
        connection.execute(delete(meta).where(meta.c.key == "embedder"))
        connection.execute(insert(meta).values(key="embedder", value=embedder.name))
