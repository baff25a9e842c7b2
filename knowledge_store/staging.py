"""Staging: a change of any length becomes rows of a layer that no generation shows.

A short change is staged within the transaction that publishes it; a long one in many short transactions, so that
nobody waits for it and a crash leaves nothing visible. Not here: making it visible (``publish.py``).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Dialect, Table, bindparam, delete, insert, select, update

from knowledge_store.change import PROBLEM_LIMIT, Change, FactChange, Problem
from knowledge_store.database import Database
from knowledge_store.errors import InvalidChange, InvalidFact, StagingLost
from knowledge_store.fact import Fact, check_fact
from knowledge_store.key import hash64, normalise
from knowledge_store.schema import OPEN, alias, counter, fact, layer, name, retraction
from knowledge_store.spelling import halves
from knowledge_store.vocabulary import PendingVocabulary, Vocabulary

SHORT = 8_192
"""A change of fewer facts is staged within the transaction that publishes it."""
_CHUNK = 32_768
"""So many rows are written at once: each time, most pages of the table's trees are written, too."""
_NEW_LAYER = insert(layer)
_TAKE = (
    update(counter)
    .where(counter.c.name == bindparam("of"))
    .values(next=counter.c.next + bindparam("count"))
    .returning(counter.c.next)
)


@dataclass(slots=True)
class Staged:
    """A change on its way.

    A long one is `durable`: its rows are committed, and must be swept away if it is not published. Of a short one,
    `rest` is what the publishing transaction must write first.
    """

    change: Change
    layer_id: int | None = None
    rest: list[tuple[int, FactChange]] = field(default_factory=list)
    durable: bool = False
    count: int = 0
    retracts: bool = False
    prepared: Any = None  # what ``publish.py`` did ahead


def stage(database: Database, vocabulary: Vocabulary, change: Change) -> Staged:
    """Read all of `change` and write it out of sight, but for the last chunk of a short one.

    Raises:
        InvalidChange: some facts are invalid; nothing is left behind.
    """
    staged = Staged(change)
    numbered = _checked(change)
    chunk = list(islice(numbered, SHORT))
    if len(chunk) < SHORT:
        staged.rest = chunk
        return staged
    staged.durable = True
    chunk += islice(numbered, _CHUNK - SHORT)
    try:
        while chunk:
            prepared = _prepare(chunk)  # before the lock is taken: others write meanwhile
            with database.write() as connection:
                pending = PendingVocabulary(vocabulary, connection)
                _write(connection, pending, staged, prepared)
            pending.settle()
            chunk = list(islice(numbered, _CHUNK))
    except BaseException:
        discard(database, staged)
        raise
    return staged


def discard(database: Database, staged: Staged) -> None:
    """Sweep away what was staged."""
    if staged.durable and staged.layer_id is not None:
        with database.write() as connection:
            sweep_layer(connection, staged.layer_id)
        staged.layer_id = None


def sweep_layer(connection: Connection, layer_id: int) -> None:
    """Delete a layer with all that hangs on it."""
    rows = select(fact.c.id).where(fact.c.layer_id == layer_id)
    connection.execute(delete(alias).where(alias.c.fact_id.in_(rows)))
    connection.execute(delete(fact).where(fact.c.layer_id == layer_id))
    connection.execute(delete(retraction).where(retraction.c.layer_id == layer_id))
    connection.execute(delete(layer).where(layer.c.id == layer_id))


@dataclass(slots=True)
class _Prepared:
    """A chunk as rows that lack only what must be asked under the lock. Places are within the chunk."""

    count: int
    rows: list[tuple[int, int, str, tuple[Any, ...]]] = field(default_factory=list)  # place, subject64, relation, rest
    aliases: list[tuple[int, int, int]] = field(default_factory=list)  # alias64, place, subject64
    retractions: list[tuple[int, int, str, int | None]] = field(default_factory=list)
    names: dict[int, tuple[int, int, int]] = field(default_factory=dict)


def _prepare(chunk: Sequence[tuple[int, FactChange]]) -> _Prepared:
    made = _Prepared(len(chunk))
    written: dict[str, int] = {}  # files tell of one subject after the other, so of each one once
    for place, (ordinal, item) in enumerate(chunk):
        it = item.fact
        subject64 = written.get(it.subject)
        if subject64 is None:
            subject64 = written[it.subject] = hash64(normalise(it.subject))
        if item.delete:
            value64 = hash64(normalise(it.value)) if it.value else None
            made.retractions.append((ordinal, subject64, it.relation, value64))
            continue
        if subject64 not in made.names:
            made.names[subject64] = (subject64, *halves(normalise(it.subject)))
        made.rows.append((place, subject64, it.relation, _rest(it, ordinal)))
        if it.aliases:
            made.aliases += [(key64, place, subject64) for key64 in {hash64(normalise(one)) for one in it.aliases}]
    return made


def write_chunk(
    connection: Connection, pending: PendingVocabulary, staged: Staged, chunk: Sequence[tuple[int, FactChange]]
) -> None:
    """Write `chunk` into the staged layer, which is made at its first chunk."""
    _write(connection, pending, staged, _prepare(chunk))


def _write(connection: Connection, pending: PendingVocabulary, staged: Staged, made: _Prepared) -> None:
    now = datetime.now(UTC).isoformat()
    if staged.layer_id is None:
        staged.layer_id = take_numbers(connection, "layer", 1)
        connection.execute(_NEW_LAYER, {"id": staged.layer_id, "published": False, "touched": now})
    elif not connection.execute(update(layer).where(layer.c.id == staged.layer_id).values(touched=now)).rowcount:
        raise StagingLost("the change took so long that its staged part was swept away; make it again, in less time")
    number, layer_id = pending.number, staged.layer_id
    first = take_numbers(connection, "fact", made.count)
    rows = [
        (first + place, layer_id, 0, OPEN, subject64, number(relation), *rest)
        for place, subject64, relation, rest in made.rows
    ]
    aliases = [(alias64, first + place, subject64) for alias64, place, subject64 in made.aliases]
    retractions = [
        (layer_id, ordinal, subject64, number(relation), value64)
        for ordinal, subject64, relation, value64 in made.retractions
    ]
    staged.count += made.count
    staged.retracts |= bool(made.retractions)
    for table, values in ((fact, rows), (alias, aliases), (retraction, retractions)):
        insert_rows(connection, table, values)
    insert_rows(connection, name, list(made.names.values()), known_ones=True)


def take_numbers(connection: Connection, of: str, count: int) -> int:
    """Take `count` numbers that were never used; the first one is given."""
    after = connection.scalar(_TAKE, {"of": of, "count": count})
    assert after is not None, f"there is no counter called {of}"
    return int(after) - count


def insert_rows(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], *, known_ones: bool = False
) -> None:
    """Insert tuples in the order of the table's columns: a third of the time that dictionaries take.

    With `known_ones`, rows may be among them that are there already.
    """
    if rows:
        sql = _insertion(table, connection.dialect.name, connection.dialect)
        connection.exec_driver_sql(sql + " ON CONFLICT DO NOTHING" if known_ones else sql, list(rows))


_INSERTIONS: dict[tuple[str, str], str] = {}


def _insertion(table: Table, database: str, dialect: Dialect) -> str:
    key = (table.name, database)
    if key not in _INSERTIONS:
        _INSERTIONS[key] = str(insert(table).compile(dialect=dialect))
    return _INSERTIONS[key]


def _rest(it: Fact, ordinal: int) -> tuple[Any, ...]:
    """Give the columns of a row after the relation's number."""
    return (
        hash64(normalise(it.value)),
        it.subject,
        it.relation,
        it.value,
        it.source,
        json.dumps(it.aliases, ensure_ascii=False) if it.aliases else None,
        it.valid_from,
        it.valid_to,
        it.digest(),
        ordinal,
    )


def _checked(change: Change) -> Iterator[tuple[int, FactChange]]:
    """Number the facts and check each one; raise in the end if any was bad."""
    problems: list[Problem] = []
    line = 0
    for item in change.facts:
        line = max(line + 1, item.line or 0)
        if isinstance(item, Problem):
            problems.append(item)
        else:
            try:
                check_fact(item.fact, value_required=not item.delete)
            except InvalidFact as error:
                problems.append(Problem(line, str(error)))
            else:
                if item.fact.module != change.module:
                    wrong = f"the fact is for module {item.fact.module!r}, the change for {change.module!r}"
                    problems.append(Problem(line, wrong))
                elif not problems:
                    yield line, item
        if len(problems) == PROBLEM_LIMIT:
            break
    if problems:
        raise InvalidChange(tuple(problems))
