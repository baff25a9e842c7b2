"""Publishing: a staged layer becomes part of a generation, in one transaction, by statements over sets.

The steps for a merge: resolve what the change says twice, close what it retracts, drop what is already there, close
what it supersedes, and move the rest into the module's layer. Into an empty module, and for a replacement, the staged
layer itself becomes the module's. Not here: reading the change (``staging.py``), modules as such (``module.py``).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    union_all,
    update,
)

from knowledge_store.change import PROBLEM_LIMIT, Conflict, Policy
from knowledge_store.errors import Contradiction
from knowledge_store.module import State
from knowledge_store.row import row_fact
from knowledge_store.schema import OPEN, declaration, fact, layer, retraction
from knowledge_store.staging import Staged, sweep_layer, write_chunk
from knowledge_store.vocabulary import PendingVocabulary

_EARLIEST = ""
_LATEST = "9999-99"


@dataclass(slots=True)
class Tally:
    """What became of a change so far; `moved` and `closed` count rows."""

    unchanged: int = 0
    unchanged_rows: int = 0  # less what the change says twice
    changed: int = 0
    added: int = 0
    deleted: int = 0
    closed: int = 0
    moved: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    layer_id: int | None = None  # the module's layer afterwards
    facts: int = 0  # what the module holds afterwards

    @property
    def anything(self) -> bool:
        """Whether there is anything for a new generation to show."""
        return bool(self.moved or self.closed)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a staged layer goes. `layer_id` is None where the module is new."""

    module: str
    layer_id: int | None
    policy: Policy
    generation: int


def publish(
    connection: Connection, pending: PendingVocabulary, staged: Staged, state: State | None, generation: int
) -> Tally:
    """Make `staged` what its module shows from `generation` on; `state` is what the module is now, if it is.

    Raises:
        Contradiction: the module's policy refuses a second value; the transaction must be rolled back.
    """
    if staged.rest or staged.layer_id is None:
        write_chunk(connection, pending, staged, staged.rest)
    assert staged.layer_id is not None, "what is written has a layer"
    policy = Policy.NEWEST if state is None else state.policy
    target = Target(staged.change.module, None if state is None else state.layer_id, policy, generation)
    tally = Tally(layer_id=target.layer_id, facts=0 if state is None else state.facts)
    _resolve(connection, staged.layer_id, target, tally)
    if state is not None and state.facts and staged.change.mode == "merge":
        _merge(connection, staged.layer_id, target, tally)
        tally.facts += tally.moved - tally.closed
    else:
        _compare(connection, staged.layer_id, target, tally)
        if tally.anything:
            tally.layer_id, tally.facts = staged.layer_id, tally.moved + tally.unchanged_rows
            connection.execute(delete(retraction).where(retraction.c.layer_id == staged.layer_id))
            connection.execute(update(layer).where(layer.c.id == staged.layer_id).values(published=True))
            return tally
    sweep_layer(connection, staged.layer_id)
    return tally


def _resolve(connection: Connection, layer_id: int, target: Target, tally: Tally) -> None:
    """Settle what the staged layer says more than once of the same subject and relation, in the change's order.

    Raises:
        Contradiction: it gives a functional relation two values, and the module's policy is to reject that.
    """
    said = union_all(
        select(fact.c.subject64, fact.c.relation_id).where(fact.c.layer_id == layer_id),
        select(retraction.c.subject64, retraction.c.relation_id).where(retraction.c.layer_id == layer_id),
    ).subquery()
    twice = select(said).group_by(said.c.subject64, said.c.relation_id).having(func.count() > 1)
    many = _multivalued(connection)
    dropped: list[int] = []
    for subject64, relation_id in connection.execute(twice).fetchall():
        said_of = _said(connection, layer_id, subject64, relation_id)
        dropped += _fold(said_of, relation_id not in many, target, tally)
    for place in range(0, len(dropped), 500):
        connection.execute(delete(fact).where(fact.c.id.in_(dropped[place : place + 500])))
    _refuse(target, tally)


def _unindexed(column: Any) -> Any:
    """Keep SQLite from walking the whole module where it should look up what a short change names."""
    return column + 0


def _multivalued(connection: Connection) -> set[int]:
    open_ones = select(declaration.c.relation_id).where(declaration.c.to_gen == OPEN, ~declaration.c.functional)
    return set(connection.scalars(open_ones))


def _said(connection: Connection, layer_id: int, subject64: int, relation_id: int) -> list[Any]:
    staged = select(fact).where(
        fact.c.layer_id == layer_id, fact.c.subject64 == subject64, fact.c.relation_id == relation_id
    )
    retracted = select(retraction).where(
        retraction.c.layer_id == layer_id,
        retraction.c.subject64 == subject64,
        retraction.c.relation_id == relation_id,
    )
    rows = [*connection.execute(staged), *connection.execute(retracted)]
    return sorted(rows, key=lambda row: row.ordinal)


def _fold(said: Iterable[Any], functional: bool, target: Target, tally: Tally) -> list[int]:
    """Read what is `said` in order; give the ids of the rows that do not stand in the end."""
    live: list[Any] = []
    dropped: list[int] = []
    for row in said:
        if "digest" not in row._fields:  # a retraction
            gone = [other for other in live if row.value64 in (None, other.value64)]
        elif any(other.digest == row.digest for other in live):
            tally.unchanged += 1
            dropped.append(row.id)
            continue
        else:
            rivals = [other for other in live if _overlap(other, row)]
            gone = [other for other in rivals if other.value64 == row.value64]
            if functional:
                clashing = [other for other in rivals if other.value64 != row.value64]
                _report(clashing, row, target, tally)
                gone += clashing if target.policy is Policy.NEWEST else []
            live.append(row)
        dropped += [other.id for other in gone]
        live = [other for other in live if other not in gone]
    return dropped


def _overlap(one: Any, other: Any) -> bool:
    return (one.valid_from or _EARLIEST) < (other.valid_to or _LATEST) and (other.valid_from or _EARLIEST) < (
        one.valid_to or _LATEST
    )


def _report(clashing: Iterable[Any], newest: Any, target: Target, tally: Tally) -> None:
    for other in clashing:
        if len(tally.conflicts) < PROBLEM_LIMIT:
            older_first = target.policy is not Policy.NEWEST
            kept, lost = (other, newest) if older_first else (newest, other)
            tally.conflicts.append(
                Conflict(
                    newest.subject,
                    newest.relation,
                    row_fact(kept, target.module),
                    row_fact(lost, target.module),
                    kept.ordinal,
                    lost.ordinal,
                )
            )


def _refuse(target: Target, tally: Tally) -> None:
    if target.policy is Policy.REJECT and tally.conflicts:
        raise Contradiction(target.module, tuple(tally.conflicts))


def _merge(connection: Connection, layer_id: int, target: Target, tally: Tally) -> None:
    """Make the resolved layer part of the target's layer, from the target's generation on.

    Raises:
        Contradiction: a value stands against another one in the module, and the policy is to reject that.
    """
    assert target.layer_id is not None, "a merge has a layer to merge into"
    old, new = fact.alias("old"), fact.alias("new")
    many = _multivalued(connection)
    pair = and_(
        new.c.layer_id == layer_id,
        old.c.subject64 == new.c.subject64,
        old.c.relation_id == new.c.relation_id,
        _unindexed(old.c.layer_id) == target.layer_id,
        old.c.to_gen == OPEN,
    )
    same = and_(pair, old.c.digest == new.c.digest)
    kept = exists(select(new.c.id).where(same))
    _close(connection, target, tally, _retracted(old, layer_id, target.layer_id).where(not_(kept)))
    present = select(new.c.id).select_from(old.join(new, same))
    # Found first, deleted then: a deletion that looks through the same table is planned badly by both databases.
    tally.unchanged += _delete(connection, connection.scalars(present).all())
    overlapping = and_(
        pair,
        func.coalesce(old.c.valid_from, _EARLIEST) < func.coalesce(new.c.valid_to, _LATEST),
        func.coalesce(new.c.valid_from, _EARLIEST) < func.coalesce(old.c.valid_to, _LATEST),
    )
    rival = and_(overlapping, old.c.value64 != new.c.value64, old.c.relation_id.not_in(many))
    if target.policy is not Policy.NEWEST:
        _report_rivals(connection, old, new, rival, target, tally)
        rival = false()
    superseded = select(old.c.id).select_from(
        new.join(old, and_(overlapping, or_(old.c.value64 == new.c.value64, rival)))
    )
    _close(connection, target, tally, superseded)
    _count(connection, layer_id, target, tally)
    moved = update(fact).where(fact.c.layer_id == layer_id)
    tally.moved = connection.execute(moved.values(layer_id=target.layer_id, from_gen=target.generation)).rowcount


def _retracted(old: Any, layer_id: int, target_layer: int) -> Any:
    return (
        select(old.c.id)
        .select_from(
            retraction.join(
                old,
                and_(
                    old.c.subject64 == retraction.c.subject64,
                    old.c.relation_id == retraction.c.relation_id,
                    or_(retraction.c.value64.is_(None), retraction.c.value64 == old.c.value64),
                ),
            )
        )
        .where(retraction.c.layer_id == layer_id, _unindexed(old.c.layer_id) == target_layer, old.c.to_gen == OPEN)
    )


def _close(connection: Connection, target: Target, tally: Tally, ids: Any) -> None:
    closing = update(fact).where(fact.c.id.in_(ids)).values(to_gen=target.generation)
    tally.closed += connection.execute(closing).rowcount


def _delete(connection: Connection, ids: Any) -> int:
    for place in range(0, len(ids), 500):
        connection.execute(delete(fact).where(fact.c.id.in_(ids[place : place + 500])))
    return len(ids)


def _report_rivals(
    connection: Connection, old: Any, new: Any, rival: ColumnElement[bool], target: Target, tally: Tally
) -> None:
    pairs = select(old.c.id, new.c.id).select_from(new.join(old, rival)).order_by(new.c.ordinal)
    for old_id, new_id in connection.execute(pairs.limit(PROBLEM_LIMIT - len(tally.conflicts))).fetchall():
        kept = connection.execute(select(fact).where(fact.c.id == old_id)).one()
        other = connection.execute(select(fact).where(fact.c.id == new_id)).one()
        facts = (row_fact(kept, target.module), row_fact(other, target.module))
        tally.conflicts.append(Conflict(other.subject, other.relation, *facts, None, other.ordinal))
    _refuse(target, tally)


def _count(connection: Connection, layer_id: int, target: Target, tally: Tally) -> None:
    """Tell new facts from changed ones, and superseded ones from deleted ones, before the staged rows are moved."""
    old, new = fact.alias("closed"), fact.alias("staged")
    many = _multivalued(connection)
    replaces = and_(
        old.c.subject64 == new.c.subject64,
        old.c.relation_id == new.c.relation_id,
        _unindexed(old.c.layer_id) == target.layer_id,
        old.c.to_gen == target.generation,
        new.c.layer_id == layer_id,
        or_(old.c.value64 == new.c.value64, old.c.relation_id.not_in(many)),
    )
    staged = connection.scalar(select(func.count()).select_from(new).where(new.c.layer_id == layer_id)) or 0
    pairs = select(func.count(new.c.id.distinct()), func.count(old.c.id.distinct())).select_from(
        new.join(old, replaces)
    )
    changed, replaced = connection.execute(pairs).one() if tally.closed else (0, 0)
    tally.changed, tally.added = changed, staged - changed
    tally.deleted = tally.closed - replaced


def _compare(connection: Connection, layer_id: int, target: Target, tally: Tally) -> None:
    """Count what showing the resolved layer in place of the target's layer changes; changes nothing."""
    staged = connection.scalar(select(func.count()).select_from(fact).where(fact.c.layer_id == layer_id)) or 0
    tally.moved = tally.added = staged
    if target.layer_id is None:
        return
    old, new = fact.alias("old"), fact.alias("new")
    many = _multivalued(connection)
    pair = and_(
        old.c.subject64 == new.c.subject64,
        old.c.relation_id == new.c.relation_id,
        _unindexed(old.c.layer_id) == target.layer_id,
        old.c.to_gen == OPEN,
        new.c.layer_id == layer_id,
    )
    counterpart = and_(pair, or_(old.c.value64 == new.c.value64, old.c.relation_id.not_in(many)))
    held = connection.scalar(
        select(func.count()).select_from(fact).where(fact.c.layer_id == target.layer_id, fact.c.to_gen == OPEN)
    )
    same = select(func.count()).select_from(new.join(old, and_(pair, old.c.digest == new.c.digest)))
    matched = select(func.count(new.c.id.distinct()), func.count(old.c.id.distinct())).select_from(
        new.join(old, counterpart)
    )
    present = connection.scalar(same) or 0
    new_matched, old_matched = connection.execute(matched).one()
    tally.unchanged += present
    tally.unchanged_rows = present
    tally.changed = new_matched - present
    tally.added = staged - new_matched
    tally.deleted = tally.closed = (held or 0) - old_matched
    tally.moved = staged - present
