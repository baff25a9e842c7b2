"""Reads the rows of one generation: by subject, by value, by alias, page by page. What a lookup is made of.

A view never changes and is shared by all who pinned the same generation with the same modules on the same day.
Not here: in which order a lookup tries what (``lookup.py``).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, bindparam, select

from knowledge_store.database import Database, translate
from knowledge_store.declaration import Declarations
from knowledge_store.errors import InvalidFact, UnknownModule
from knowledge_store.fact import Fact
from knowledge_store.key import hash64, normalise
from knowledge_store.module import State
from knowledge_store.row import COLUMNS, fact_from
from knowledge_store.schema import alias, fact, name
from knowledge_store.spelling import SHORTEST, half_keys, middle_swapped, one_edit_apart
from knowledge_store.vocabulary import Vocabulary

if TYPE_CHECKING:
    from knowledge_store.outcome import Outcome
    from knowledge_store.protocol import Query

ROW_LIMIT = 10_000
"""So many rows of one key are read; nobody reads on."""
PAGE_LIMIT = 1_000
_NEAR_LIMIT = 2_000
"""So many rows are read that share half a misspelled name; where more do, a near name may stay unfound."""

SUBJECTS_AT_ONCE = 5
_KEYS_AT_ONCE = (16, 128)
"""Sizes of the statement that asks for many names; what is left over is filled with repetitions."""

_SHOWN = (fact.c.layer_id, fact.c.relation_id, *(fact.c[name] for name in COLUMNS))
_HOLDS = (fact.c.from_gen <= bindparam("g"), fact.c.to_gen > bindparam("h"))


class Statements:
    """The SQL of all views of a database, made once."""

    def __init__(self, database: Database) -> None:
        def by(*names: str) -> str:
            keys = [fact.c[column] == bindparam(column) for column in names]
            rows = select(*_SHOWN).where(*keys, *_HOLDS).order_by(fact.c.id)
            return f"{database.compile(rows, *names, 'g', 'h')} LIMIT {ROW_LIMIT}"

        self.values = by("subject64", "relation_id")
        self.of_subject = by("subject64")
        numbers = [f"subject{place}" for place in range(SUBJECTS_AT_ONCE)]
        several = fact.c.subject64.in_([bindparam(it) for it in numbers])
        rows = select(fact.c.subject64, *_SHOWN).where(several, *_HOLDS).order_by(fact.c.id)
        self.of_subjects = f"{database.compile(rows, *numbers, 'g', 'h')} LIMIT {ROW_LIMIT}"
        self.subjects = by("value64", "relation_id")
        self.of_value = by("value64")
        ever = select(fact.c.subject).where(fact.c.subject64 == bindparam("subject64"))
        self.ever = f"{database.compile(ever, 'subject64')} LIMIT 1"

        def by_half(column: Any) -> str:
            keys: list[Any] = [bindparam(key) for key in ("one", "two", "three")]
            near = select(fact.c.layer_id, fact.c.subject).join(name, name.c.subject64 == fact.c.subject64)
            sql = database.compile(near.where(column.in_(keys), *_HOLDS), "one", "two", "three", "g", "h")
            return f"{sql} LIMIT {_NEAR_LIMIT}"

        self.by_head, self.by_tail = by_half(name.c.head64), by_half(name.c.tail64)
        named = (
            select(alias.c.subject64, fact.c.layer_id, fact.c.aliases, fact.c.subject)
            .join(fact, fact.c.id == alias.c.fact_id)
            .where(alias.c.alias64 == bindparam("alias64"), *_HOLDS)
        )
        self.aliased = database.compile(named, "alias64", "g", "h")

        def known(size: int) -> str:
            ones, others = ([f"{kind}{place}" for place in range(size)] for kind in ("name", "alias"))
            subjects = select(name.c.subject64).where(name.c.subject64.in_([bindparam(it) for it in ones]))
            aliases = select(alias.c.alias64).where(alias.c.alias64.in_([bindparam(it) for it in others]))
            return database.compile(subjects.union_all(aliases), *ones, *others)

        self.known = {size: known(size) for size in _KEYS_AT_ONCE}


def _filled(keys: Sequence[int], size: int) -> list[int]:
    """Repeat the last of `keys` until there are as many as a statement asks for."""
    return [*keys, *[keys[-1]] * (size - len(keys))]


@dataclass(frozen=True, slots=True)
class Page:
    """Some facts, and where to go on: None at the end."""

    facts: tuple[Fact, ...]
    cursor: str | None


class View:
    """The rows that one generation shows."""

    def __init__(
        self,
        database: Database,
        statements: Statements,
        vocabulary: Vocabulary,
        declarations: Declarations,
        states: Sequence[State],
        number: int,
        day: str,
    ) -> None:
        self.number = number
        self.day = day
        self.declarations = declarations
        self.states = tuple(states)
        self.answers: dict[Query, Outcome] = {}
        """What was looked up already: it holds as long as the view, unless something is redacted."""
        self._database = database
        self._sql = statements
        self._vocabulary = vocabulary
        self._modules = {state.layer_id: (rank, state.name) for rank, state in enumerate(states)}

    def relation(self, written: str) -> int | None:
        """Give the number of a relation by its own name, or None where nobody ever used it."""
        return self._vocabulary.find(written)

    def values(self, subject: str, relation_id: int) -> tuple[Fact, ...]:
        """Give the facts of a subject and a relation, of the first module that has any."""
        key = normalise(subject)
        try:
            parameters = (hash64(key), relation_id, self.number, self.number)
            rows = self._database.reader().execute(self._sql.values, parameters).fetchall()
        except self._database.driver_error as error:
            raise translate(error) from error
        return self._first(rows, key) if rows else ()

    def of_subject(self, subject: str) -> tuple[Fact, ...]:
        """Give all facts of a subject; each relation from the first module that has it."""
        key = normalise(subject)
        return self._by_relation(self._run(self._sql.of_subject, hash64(key)), key)

    def of_keys(self, subjects64: Sequence[int]) -> tuple[tuple[Fact, ...], ...]:
        """Give the facts of each subject that has any, by their numbers, in their order; `SUBJECTS_AT_ONCE` at most."""
        rows: dict[int, list[Any]] = {it: [] for it in subjects64}
        for subject64, *row in self._run(self._sql.of_subjects, *_filled(subjects64, SUBJECTS_AT_ONCE)):
            rows[subject64].append(row)
        groups = (self._by_relation(some, None) for some in rows.values())
        return tuple(it for it in groups if it)

    def _by_relation(self, rows: list[Any], key: str | None) -> tuple[Fact, ...]:
        by_relation: dict[int, list[Any]] = {}
        for row in rows:
            by_relation.setdefault(row[1], []).append(row)
        return tuple(it for rows in by_relation.values() for it in self._first(rows, key))

    def subjects(self, value: str, relation_id: int) -> tuple[Fact, ...]:
        """Give the facts with a value of a relation, less those that a module of higher precedence overrides."""
        return self._standing(self._run(self._sql.subjects, hash64(normalise(value)), relation_id), normalise(value))

    def of_value(self, value: str) -> tuple[Fact, ...]:
        """Give the facts with a value, whatever the relation, less those that are overridden."""
        return self._standing(self._run(self._sql.of_value, hash64(normalise(value))), normalise(value))

    def aliased(self, other: str) -> tuple[str, ...]:
        """Give the subjects, as written, that have `other` for an alias."""
        key = normalise(other)
        found: dict[int, str] = {}
        for subject64, layer_id, aliases, subject in self._execute(
            self._sql.aliased, (hash64(key), self.number, self.number)
        ):
            if layer_id in self._modules and key in map(normalise, json.loads(aliases)):
                found.setdefault(subject64, subject)
        return tuple(found.values())

    def ever_knew(self, subject: str) -> bool:
        """Whether the store ever had a fact of the subject: then the name is no slip of the pen."""
        return bool(self._execute(self._sql.ever, (hash64(normalise(subject)),)))

    def known(self, names: Sequence[str]) -> set[str]:
        """Give those of some normal forms that any fact ever had for a subject or an alias: a few queries for all."""
        by_key = {hash64(it): it for it in names}
        keys, found = list(by_key), set[int]()
        while keys:
            size = next((it for it in _KEYS_AT_ONCE if it >= len(keys)), _KEYS_AT_ONCE[-1])
            some, keys = _filled(keys[:size], size), keys[size:]
            found.update(row[0] for row in self._execute(self._sql.known[size], (*some, *some)))
        return {by_key[it] for it in found}

    def one_edit_from(self, subject: str) -> tuple[str, ...]:
        """Give the subjects, as written, whose names are one edit from `subject`."""
        key = normalise(subject)
        if len(key) < SHORTEST:
            return ()
        heads, tails = half_keys(key)
        number = self.number
        rows = self._execute(self._sql.by_head, (*heads, number, number))
        rows += self._execute(self._sql.by_tail, (*tails, number, number))
        near = {it for layer_id, it in rows if layer_id in self._modules}
        near |= {it.subject for it in self.of_subject(middle_swapped(key))}
        return tuple({form: it for it in near if one_edit_apart(form := normalise(it), key)}.values())

    def _holds(self, row: Any) -> bool:
        return (row[7] is None or row[7] <= self.day) and (row[8] is None or self.day < row[8])

    def _first(self, rows: list[Any], key: str | None) -> tuple[Fact, ...]:
        best: list[Fact] = []
        best_rank = len(self._modules)
        for row in rows:
            place = self._modules.get(row[0])
            if place is None or place[0] > best_rank:
                continue
            if (key is None or row[2] == key or normalise(row[2]) == key) and self._holds(row):
                if place[0] < best_rank:
                    best_rank, best = place[0], []
                best.append(fact_from(row[2:], place[1]))
        return tuple(best)

    def _standing(self, rows: list[Any], value_key: str | None) -> tuple[Fact, ...]:
        standing: list[Fact] = []
        for row in rows:
            place = self._modules.get(row[0])
            if place is None:
                continue
            it = fact_from(row[2:], place[1])
            if (
                it.holds_on(self.day)
                and (value_key is None or normalise(it.value) == value_key)
                and (place[0] == 0 or it in self.values(it.subject, row[1]))
            ):
                standing.append(it)
        return tuple(standing)

    def _run(self, sql: str, *keys: int) -> list[Any]:
        return self._execute(sql, (*keys, self.number, self.number))

    def _execute(self, sql: str, parameters: tuple[int, ...]) -> list[Any]:
        try:
            return self._database.reader().execute(sql, parameters).fetchall()
        except self._database.driver_error as error:
            raise translate(error) from error

    def page(
        self,
        *,
        subject: str | None,
        relation: str | None,
        value: str | None,
        module: str | None,
        limit: int,
        cursor: str | None,
    ) -> Page:
        """Give up to `limit` facts in the order of their making, overridden ones included."""
        if not 1 <= limit <= PAGE_LIMIT:
            raise InvalidFact(f"a page has 1 to {PAGE_LIMIT:,} facts, not {limit}")
        layers = [state.layer_id for state in self.states if module in (None, state.name)]
        if module is not None and not layers:
            raise UnknownModule(f"generation {self.number} has no module {module!r} here; see: knowledge list")
        conditions: list[Any] = [fact.c.layer_id.in_(layers), *_HOLDS]
        if subject is not None:
            conditions.append(fact.c.subject64 == hash64(normalise(subject)))
        if value is not None:
            conditions.append(fact.c.value64 == hash64(normalise(value)))
        if relation is not None:
            conditions.append(fact.c.relation_id == (self.relation(relation) or 0))
        if cursor is not None:
            if not cursor.isascii() or not cursor.isdecimal():
                raise InvalidFact(f"not a cursor: {cursor[:40]!r}; give back the one that came with the last page")
            conditions.append(fact.c.id > int(cursor))
        rows = self._select(select(fact.c.id, *_SHOWN).where(*conditions).order_by(fact.c.id).limit(limit + 1))
        facts = tuple(fact_from(row[3:], self._modules[row[1]][1]) for row in rows[:limit])
        return Page(facts, str(rows[limit - 1][0]) if len(rows) > limit else None)

    def _select(self, statement: Select[Any]) -> list[Any]:
        with self._database.read() as connection:
            return [tuple(row) for row in connection.execute(statement, {"g": self.number, "h": self.number})]
