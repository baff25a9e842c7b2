"""A commit: staged changes to one or more modules become one generation, within a transaction that `Store` holds."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from knowledge_store.change import Change, CommitReport
from knowledge_store.errors import PreconditionFailed
from knowledge_store.module import State, new_state, write_event, write_state
from knowledge_store.publish import Tally, publish
from knowledge_store.rollback import Place, difference, roll_back
from knowledge_store.staging import Staged
from knowledge_store.timeline import begin_generation, head_within
from knowledge_store.vocabulary import PendingVocabulary


def commit_staged(
    connection: Connection,
    pending: PendingVocabulary,
    staged: Sequence[Staged],
    author: str,
    if_match: dict[str, str],
) -> tuple[CommitReport, ...]:
    """Publish what is staged; where nothing changes, there is no new generation.

    Raises:
        PreconditionFailed: a module is not at the ETag that `if_match` has for it.
        Contradiction: a module's policy refuses a second value.
    """
    head, states = head_within(connection)
    for name, etag in if_match.items():
        _check_etag(name, states.get(name), etag)
    tallies = [publish(connection, pending, it, states.get(it.change.module), head + 1) for it in staged]
    number = head
    if any(tally.anything for tally in tallies):
        number = begin_generation(connection, head, author)
    return tuple(
        _settle(connection, number, it.change, states.get(it.change.module), tally)
        for it, tally in zip(staged, tallies, strict=True)
    )


def commit_rollback(
    connection: Connection, head: int, now: State | None, then: State, generation: int, author: str
) -> CommitReport:
    """Let the module be as `then` again, as it was in `generation`; where it is so already, there is no new one."""
    number = head + 1
    before = Place(None if now is None else now.layer_id, head)
    moved = roll_back(connection, then.layer_id, generation, number)
    if not moved and now is not None and now.layer_id == then.layer_id:
        return CommitReport(then.name, head, unchanged=now.facts, etag=now.etag)
    added = changed = deleted = 0
    for it in difference(connection, then.name, before, Place(then.layer_id, number)):
        added += it.before is None
        deleted += it.after is None
        changed += it.before is not None and it.after is not None
    begin_generation(connection, head, author)
    held = 0 if now is None else now.facts
    base = then if now is None else now
    after = replace(base, layer_id=then.layer_id, facts=held + added - deleted, changed_in=number)
    write_state(connection, number, after)
    counts = (added, changed, deleted)
    write_event(connection, number, then.module_id, "rollback", detail=f"to generation {generation}", counts=counts)
    return CommitReport(then.name, number, added, changed, deleted, held - changed - deleted, etag=after.etag)


def _settle(connection: Connection, number: int, change: Change, state: State | None, tally: Tally) -> CommitReport:
    if tally.anything:
        assert tally.layer_id is not None, "what changed has a layer"
        state = state or new_state(connection, change.module, tally.layer_id, number)
        state = replace(state, layer_id=tally.layer_id, facts=tally.facts, changed_in=number)
        write_state(connection, number, state)
        counts = (tally.added, tally.changed, tally.deleted)
        write_event(connection, number, state.module_id, change.mode, counts=counts)
    return CommitReport(
        change.module,
        number,
        tally.added,
        tally.changed,
        tally.deleted,
        tally.unchanged,
        tuple(tally.conflicts),
        "" if state is None else state.etag,
    )


def _check_etag(name: str, state: State | None, etag: str) -> None:
    now = None if state is None else state.etag
    same = now is not None and etag.removeprefix("W/").strip().strip('"') == now.strip('"')
    if not (same or (now is not None and etag.strip() == "*")):
        raise PreconditionFailed(
            f"module {name!r} is not as you read it: its ETag is {now or 'none'}, not {etag[:80]}; "
            "read it again, then decide"
        )
