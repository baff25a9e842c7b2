"""Publishing: a staged layer becomes part of a generation, in one transaction, by statements over sets.

The steps for a merge: resolve what the change says twice, close what it overtakes on its way or retracts, drop what
is already there, close what it supersedes, and move the rest into the module's layer. So a change does what its parts
would do one after the other. Into an empty module, and for a replacement, the staged layer becomes the module's.
Not here: reading the change (``staging.py``), modules as such (``module.py``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, update

from knowledge_store.change import PROBLEM_LIMIT, Conflict, Policy
from knowledge_store.errors import Contradiction
from knowledge_store.module import State
from knowledge_store.row import row_fact
from knowledge_store.schema import layer, retraction
from knowledge_store.set_statement import SetStatements, multivalued, set_statements
from knowledge_store.staging import Staged, sweep_layer, write_chunk
from knowledge_store.vocabulary import PendingVocabulary

_EARLIEST = ""
_LATEST = "9999-99"
_BATCH = 500


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
    many = multivalued(connection)
    merging = state is not None and state.facts and staged.change.mode == "merge"
    overtaken: set[int] = set()
    if staged.count > 1 and staged.prepared is None:
        dropped = _resolve(connection, staged.layer_id, target, tally, many)
        if merging:
            overtaken = _overtaken(connection, staged.layer_id, dropped, target, many)
        _delete(connection, dropped)
    if merging:
        _merge(connection, staged, target, tally, many, overtaken)
        tally.facts += tally.moved - tally.closed
    else:
        if staged.prepared is None or staged.prepared[0] != state:
            _compare(connection, staged.layer_id, target, tally, many)
        else:
            tally = staged.prepared[1]
        if tally.anything:
            tally.layer_id, tally.facts = staged.layer_id, tally.moved + tally.unchanged_rows
            _drop_retractions(connection, staged)
            connection.execute(update(layer).where(layer.c.id == staged.layer_id).values(published=True))
            return tally
        sweep_layer(connection, staged.layer_id)
        return tally
    _drop_retractions(connection, staged)
    connection.execute(delete(layer).where(layer.c.id == staged.layer_id))
    return tally


def _drop_retractions(connection: Connection, staged: Staged) -> None:
    if staged.retracts:
        connection.execute(delete(retraction).where(retraction.c.layer_id == staged.layer_id))


def prepare_replacement(connection: Connection, staged: Staged, state: State | None) -> None:
    """Do what a replacement's publication needs but can be done before: then it takes milliseconds, however long."""
    assert staged.layer_id is not None, "only what is written can be prepared"
    policy = Policy.NEWEST if state is None else state.policy
    target = Target(staged.change.module, None if state is None else state.layer_id, policy, 0)
    tally = Tally(layer_id=target.layer_id, facts=0 if state is None else state.facts)
    many = multivalued(connection)
    _delete(connection, _resolve(connection, staged.layer_id, target, tally, many))
    _compare(connection, staged.layer_id, target, tally, many)
    staged.prepared = (state, tally)


def _resolve(connection: Connection, layer_id: int, target: Target, tally: Tally, many: list[int]) -> list[int]:
    """Settle what the staged layer says more than once of the same subject and relation, in the change's order.

    Gives the rows that do not stand in the end.

    Raises:
        Contradiction: it gives a functional relation two values, and the module's policy is to reject that.
    """
    statements = set_statements()
    dropped: list[int] = []
    for subject64, relation_id in connection.execute(statements.said_twice, {"staged": layer_id}).fetchall():
        key = {"staged": layer_id, "subject64": subject64, "relation_id": relation_id}
        said = [*connection.execute(statements.said, key), *connection.execute(statements.unsaid, key)]
        said.sort(key=lambda row: int(row.ordinal))
        dropped += _fold(said, relation_id not in many, target, tally)
    _refuse(target, tally)
    return dropped


def _overtaken(
    connection: Connection, layer_id: int, dropped: Sequence[int], target: Target, many: list[int]
) -> set[int]:
    """Give the module's rows that a dropped row took the place of, before something else took its own."""
    statements, found = set_statements(), set[int]()
    statement = statements.overtaken if target.policy is Policy.NEWEST else statements.overtaken_twins
    keys = {"staged": layer_id, "layer": target.layer_id, "many": many}
    for place in range(0, len(dropped), _BATCH):
        found.update(connection.scalars(statement, keys | {"ids": dropped[place : place + _BATCH]}))
    return found


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


def _merge(
    connection: Connection, staged: Staged, target: Target, tally: Tally, many: list[int], overtaken: set[int]
) -> None:
    """Make the resolved layer part of the target's layer, from the target's generation on.

    Raises:
        Contradiction: a value stands against another one in the module, and the policy is to reject that.
    """
    statements = set_statements()
    layers = {"staged": staged.layer_id, "layer": target.layer_id}
    present: dict[int, int] = dict(map(tuple, connection.execute(statements.present, layers)))
    _close(connection, target, tally, list(overtaken - set(present.values())))
    if staged.retracts:
        _close(connection, target, tally, connection.scalars(statements.retracted, layers).all())
    tally.unchanged += _delete(connection, list(present))
    keys = layers | {"many": many}
    if target.policy is Policy.NEWEST:
        superseded = connection.scalars(statements.superseded, keys).all()
    else:
        _report_rivals(connection, statements, keys, target, tally)
        superseded = connection.scalars(statements.superseded_twins, layers).all()
    _close(connection, target, tally, superseded)
    _count(connection, statements, keys, target, tally)
    tally.moved = connection.execute(statements.move, layers | {"number": target.generation}).rowcount


def _close(connection: Connection, target: Target, tally: Tally, ids: Sequence[int]) -> None:
    ids = list(dict.fromkeys(ids))
    for place in range(0, len(ids), _BATCH):
        keys = {"ids": ids[place : place + _BATCH], "number": target.generation}
        tally.closed += connection.execute(set_statements().close, keys).rowcount


def _delete(connection: Connection, ids: Sequence[int]) -> int:
    for place in range(0, len(ids), _BATCH):
        connection.execute(set_statements().delete, {"ids": ids[place : place + _BATCH]})
    return len(ids)


def _report_rivals(
    connection: Connection, statements: SetStatements, keys: dict[str, Any], target: Target, tally: Tally
) -> None:
    for old_id, new_id in connection.execute(statements.rivals, keys).fetchmany(PROBLEM_LIMIT - len(tally.conflicts)):
        kept, other = (connection.execute(statements.row, {"id": it}).one() for it in (old_id, new_id))
        facts = (row_fact(kept, target.module), row_fact(other, target.module))
        tally.conflicts.append(Conflict(other.subject, other.relation, *facts, None, other.ordinal))
    _refuse(target, tally)


def _count(
    connection: Connection, statements: SetStatements, keys: dict[str, Any], target: Target, tally: Tally
) -> None:
    """Tell new facts from changed ones, and superseded ones from deleted ones, before the staged rows are moved."""
    staged = connection.scalar(statements.count_staged, {"staged": keys["staged"]}) or 0
    changed = replaced = 0
    if tally.closed:
        changed, replaced = connection.execute(statements.replaced, keys | {"number": target.generation}).one()
    tally.changed, tally.added = changed, staged - changed
    tally.deleted = tally.closed - replaced


def _compare(connection: Connection, layer_id: int, target: Target, tally: Tally, many: list[int]) -> None:
    """Count what showing the resolved layer in place of the target's layer changes; changes nothing."""
    statements = set_statements()
    staged = connection.scalar(statements.count_staged, {"staged": layer_id}) or 0
    tally.moved = tally.added = staged
    if target.layer_id is None:
        return
    layers = {"staged": layer_id, "layer": target.layer_id}
    held = connection.scalar(statements.count_open, {"layer": target.layer_id}) or 0
    present = connection.scalar(statements.count_present, layers) or 0
    new_matched, old_matched = connection.execute(statements.matched, layers | {"many": many}).one()
    tally.unchanged += present
    tally.unchanged_rows = present
    tally.changed = new_matched - present
    tally.added = staged - new_matched
    tally.deleted = tally.closed = held - old_matched
    tally.moved = staged - present
