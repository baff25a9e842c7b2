"""Forgetting for good: redaction of a value from all history, and compaction of generations that nobody needs.

Not here: deletion, which only ends a fact in the generations to come (``publish.py``).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, or_, select

from knowledge_store.database import Database
from knowledge_store.fact import Fact
from knowledge_store.key import hash64, normalise
from knowledge_store.module import State, write_event, write_state
from knowledge_store.schema import OPEN, alias, declaration, fact, generation, layer, name, redaction, state
from knowledge_store.staging import sweep_layer
from knowledge_store.timeline import Pins, begin_generation, head_within, keep_from, oldest_kept

_BATCH = 5_000
STALE = timedelta(minutes=15)
"""A staged layer that nobody wrote to for so long belongs to a process that died."""


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """What a compaction did. `oldest` is the oldest generation that can still be read."""

    oldest: int
    facts: int
    layers: int


def erase(connection: Connection, it: Fact, of: State, head: int, author: str) -> int:
    """Erase the rows of a subject and relation, and of a value if `it` has one, from every generation of a module.

    A tombstone says that something was there, not what. Gives the number of rows; without any, there is no new
    generation.
    """
    layers = select(state.c.layer_id).where(state.c.module_id == of.module_id)
    rows = select(fact.c.id, fact.c.value, fact.c.subject, fact.c.relation, fact.c.to_gen, fact.c.layer_id).where(
        fact.c.subject64 == hash64(normalise(it.subject)), fact.c.layer_id.in_(layers)
    )
    keys = [normalise(text) for text in (it.subject, it.relation, it.value)]
    found = [
        row
        for row in connection.execute(rows)
        if (normalise(row.subject), normalise(row.relation)) == (keys[0], keys[1])
        and keys[2] in ("", normalise(row.value))
    ]
    if not found:
        return 0
    number = begin_generation(connection, head, author)
    for row in found:
        connection.execute(delete(alias).where(alias.c.fact_id == row.id))
        connection.execute(delete(fact).where(fact.c.id == row.id))
    stamp = datetime.now(UTC).isoformat(timespec="microseconds")
    tombstone = {"at": stamp, "author": author, "subject": it.subject, "relation": it.relation, "facts": len(found)}
    connection.execute(insert(redaction).values(generation=number, module_id=of.module_id, **tombstone))
    held = sum(row.to_gen == OPEN and row.layer_id == of.layer_id for row in found)
    write_state(
        connection,
        number,
        State(of.module_id, of.name, of.layer_id, of.mounted, of.precedence, of.policy, of.facts - held, number),
    )
    write_event(connection, number, of.module_id, "redact", counts=(0, 0, held))
    return len(found)


def compact(database: Database, pins: Pins, older_than: timedelta) -> CompactionReport:
    """Drop the generations that ceased to be the head before `older_than`, up to the oldest that anybody reads.

    In many short transactions: at no point is a kept generation less than whole.
    """
    with database.write() as connection:
        oldest = _bound(connection, pins, older_than)
        keep_from(connection, oldest)
    with database.read() as connection:
        dead_layers = _dead_layers(connection, oldest)
    layers = 0
    facts = 0
    for number in dead_layers:
        facts += _sweep_slowly(database, number)
        layers += 1
    dead = select(fact.c.id).where(fact.c.to_gen <= oldest, fact.c.to_gen < OPEN).limit(_BATCH)
    while True:
        with database.write() as connection:
            ids = list(connection.scalars(dead))
            _delete_rows(connection, ids)
        facts += len(ids)
        if len(ids) < _BATCH:
            break
    with database.write() as connection:
        for table in (state, declaration):
            connection.execute(delete(table).where(table.c.to_gen <= oldest))
        known = select(fact.c.id).where(fact.c.subject64 == name.c.subject64)
        connection.execute(delete(name).where(~known.exists()))
    return CompactionReport(oldest, facts, layers)


def _bound(connection: Connection, pins: Pins, older_than: timedelta) -> int:
    head, _ = head_within(connection)
    cutoff = (datetime.now(UTC) - older_than).isoformat(timespec="microseconds")
    # A generation ceased to be the head when the next one was made.
    last_before = connection.scalar(select(func.max(generation.c.number)).where(generation.c.at <= cutoff)) or 0
    pinned = pins.oldest(connection)
    bound = min(it for it in (last_before, head, pinned) if it is not None)
    return max(bound, oldest_kept(connection))


def _dead_layers(connection: Connection, oldest: int) -> list[int]:
    used = select(state.c.layer_id).where(state.c.to_gen > oldest)
    stale = (datetime.now(UTC) - STALE).isoformat()
    gone = or_(layer.c.published, layer.c.touched < stale)
    return list(connection.scalars(select(layer.c.id).where(layer.c.id.not_in(used), gone)))


def _sweep_slowly(database: Database, layer_id: int) -> int:
    total = 0
    some = select(fact.c.id).where(fact.c.layer_id == layer_id).limit(_BATCH)
    while True:
        with database.write() as connection:
            ids = list(connection.scalars(some))
            _delete_rows(connection, ids)
            if len(ids) < _BATCH:
                sweep_layer(connection, layer_id)
        total += len(ids)
        if len(ids) < _BATCH:
            return total


def _delete_rows(connection: Connection, ids: list[int]) -> None:
    for place in range(0, len(ids), 500):
        some = ids[place : place + 500]
        connection.execute(delete(alias).where(alias.c.fact_id.in_(some)))
        connection.execute(delete(fact).where(fact.c.id.in_(some)))
