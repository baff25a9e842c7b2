"""The store: what changes. It opens a database, commits changes, and hands out generations.

Not here: what a change does row by row (``staging.py``, ``publish.py``), reading (``generation.py``).
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from sqlalchemy import Connection, func, insert, select

from knowledge_store import staging
from knowledge_store.change import Change, CommitReport, Policy
from knowledge_store.database import Database, translated
from knowledge_store.declaration import Declaration, DeclarationReader, write_declaration
from knowledge_store.embed import Embedder
from knowledge_store.errors import (
    InvalidFact,
    ModuleNotMounted,
    PreconditionFailed,
    UnknownGeneration,
    UnknownModule,
)
from knowledge_store.fact import check_module_name
from knowledge_store.generation import Generation
from knowledge_store.indexer import Indexer, IndexStatus
from knowledge_store.meaning import Meaning
from knowledge_store.migration import chosen_embedder, index_place, prepare
from knowledge_store.module import (
    Catalog,
    ModuleInfo,
    State,
    end_state,
    new_state,
    states_within,
    write_event,
    write_state,
)
from knowledge_store.publish import Tally, publish
from knowledge_store.schema import generation as generation_table
from knowledge_store.staging import Staged
from knowledge_store.view import Statements, View
from knowledge_store.vocabulary import PendingVocabulary, Vocabulary

_VIEWS = 64


class Store:
    """An open knowledge store. Every method may be called from any thread."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        store_id, folder = index_place(database)
        self._indexer = Indexer(database, embedder, folder, store_id)
        self._meaning = Meaning(embedder, self._indexer)
        self._vocabulary = Vocabulary(database)
        self._catalog = Catalog(database)
        self._declarations = DeclarationReader(database)
        self._statements = Statements(database)
        self._head_sql = database.compile(select(func.max(generation_table.c.number)))
        self._views: OrderedDict[tuple[int, tuple[str, ...] | None, str], View] = OrderedDict()
        self._pins: Counter[int] = Counter()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, location: str | Path, *, embedder: Embedder | None = None) -> "Store":
        """Open the store at `location`, a path or an SQLAlchemy URL; a new one is made where there is none.

        Raises:
            NotAStore: the file is no database, or another program's.
            StoreUnavailable: it cannot be opened; the text says why.
        """
        database = Database(location)
        try:
            prepare(database)
            return cls(database, chosen_embedder(database, embedder))
        except BaseException:
            database.close()
            raise

    # --- Reading. ---

    @property
    def head(self) -> int:
        """The number of the newest generation; 0 in a new store. Sees what other processes committed."""
        with translated(self._database.driver_error):
            row = self._database.reader().execute(self._head_sql, ()).fetchone()
        return int(row[0] or 0)

    def generation(
        self,
        number: int | None = None,
        *,
        as_of: datetime | None = None,
        modules: Sequence[str] | None = None,
    ) -> Generation:
        """Pin a generation: the head, or `number`, or the one that was the head at `as_of`.

        `modules` are read in that order of precedence; by default all that are mounted, in theirs.

        Raises:
            UnknownGeneration: there is none of that number, or none so early.
            UnknownModule: a module does not exist in it, or is not mounted.
        """
        if number is None:
            number = self.head if as_of is None else self._head_at(as_of)
        elif as_of is not None:
            raise ValueError("ask for a generation by its number or by a time, not by both")
        elif not 0 <= number <= self.head:
            raise UnknownGeneration(f"there is no generation {number}; the newest is {self.head}")
        key = (number, None if modules is None else tuple(modules), datetime.now(UTC).date().isoformat())
        with self._lock:
            self._pins[number] += 1
            view = self._views.get(key)
        try:
            return Generation(view or self._make_view(key), self._meaning, self._unpin)
        except BaseException:
            self._unpin(number)
            raise

    def _head_at(self, at: datetime) -> int:
        if at.tzinfo is None:
            raise ValueError(f"the time {at.isoformat()} has no time zone; write it as in RFC 3339, with one")
        stamp = at.astimezone(UTC).isoformat(timespec="microseconds")
        with self._database.read() as connection:
            newest = select(func.max(generation_table.c.number)).where(generation_table.c.at <= stamp)
            number = connection.scalar(newest)
        if number is None:
            raise UnknownGeneration(f"the store had no generation yet at {at.isoformat()}")
        return int(number)

    def _make_view(self, key: tuple[int, tuple[str, ...] | None, str]) -> View:
        number, modules, day = key
        with translated(self._database.driver_error):
            states = self._catalog.at(number)
            declarations = self._declarations.at(number)
        chosen = [it for it in states if it.mounted] if modules is None else _choose(states, modules, number)
        view = View(self._database, self._statements, self._vocabulary, declarations, chosen, number, day)
        with self._lock:
            self._views[key] = view
            while len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        return view

    def _unpin(self, number: int) -> None:
        with self._lock:
            self._pins[number] -= 1
            if not self._pins[number]:
                del self._pins[number]

    def modules(self) -> tuple[ModuleInfo, ...]:
        """Give all modules of the head, unmounted ones included, in order of precedence."""
        with translated(self._database.driver_error):
            return tuple(state.info for state in self._catalog.at(self.head))

    # --- Writing facts. ---

    def commit(
        self, change: Change, *, author: str = "local", if_match: str | None = None, dry_run: bool = False
    ) -> CommitReport:
        """Make `change` one new generation, all of it or nothing; it is visible to who pins next.

        A change that changes nothing makes no generation. `if_match` is the ETag that the module must still have.

        Raises:
            InvalidChange: some facts are invalid.
            Contradiction: the module's policy refuses a second value.
            PreconditionFailed: the module moved since `if_match`.
            StoreUnavailable: the database did not do it.
        """
        matches = {} if if_match is None else {change.module: if_match}
        return self.commit_all([change], author=author, if_match=matches, dry_run=dry_run)[0]

    def commit_all(
        self,
        changes: Sequence[Change],
        *,
        author: str = "local",
        if_match: dict[str, str] | None = None,
        dry_run: bool = False,
    ) -> tuple[CommitReport, ...]:
        """Make changes to several modules one new generation; as `commit`, with an ETag for each module at will."""
        names = [check_module_name(change.module) for change in changes]
        if len(set(names)) < len(names):
            raise InvalidFact("a module stands twice in one commit; put its facts into one change")
        staged: list[Staged] = []
        try:
            staged += [staging.stage(self._database, self._vocabulary, change) for change in changes]
            with self._database.write(rehearse=dry_run) as connection:
                pending = PendingVocabulary(self._vocabulary, connection)
                reports = _publish(connection, pending, staged, author, if_match or {})
        except BaseException:
            self._discard(staged)
            raise
        if dry_run:
            self._discard(staged)
            return tuple(replace(report, dry_run=True) for report in reports)
        pending.settle()
        return reports

    def _discard(self, staged: Sequence[Staged]) -> None:
        for it in staged:
            staging.discard(self._database, it)

    # --- Modules. ---

    def mount(self, name: str, *, precedence: int | None = None, author: str = "local") -> ModuleInfo:
        """Let lookups read the module, at `precedence` if given: modules of a lower number win.

        Raises:
            UnknownModule: there is no such module.
        """
        detail = "" if precedence is None else f"precedence {precedence}"

        def mounted(state: State) -> State:
            return replace(state, mounted=True, precedence=state.precedence if precedence is None else precedence)

        return self._restate(name, "mount", mounted, author, detail)

    def unmount(self, name: str, *, author: str = "local") -> ModuleInfo:
        """Let no lookup read the module; its facts stay.

        Raises:
            UnknownModule: there is no such module.
        """
        return self._restate(name, "unmount", lambda state: replace(state, mounted=False), author)

    def set_policy(self, name: str, policy: Policy, *, author: str = "local") -> ModuleInfo:
        """Choose what the module does with contradictions from now on.

        Raises:
            UnknownModule: there is no such module.
        """
        return self._restate(name, "policy", lambda state: replace(state, policy=policy), author, policy.value)

    def _restate(
        self, name: str, operation: str, change: Callable[[State], State], author: str, detail: str = ""
    ) -> ModuleInfo:
        with self._database.write() as connection:
            head, states = _head_within(connection)
            state = _known(states, name, head)
            after = change(state)
            if after != state:
                number = _begin_generation(connection, head, author)
                write_state(connection, number, after)
                write_event(connection, number, state.module_id, operation, detail=detail)
        return after.info

    def drop_module(self, name: str, *, author: str = "local") -> int:
        """Take the module out; earlier generations keep it. Gives the new generation's number.

        Raises:
            UnknownModule: there is no such module.
        """
        with self._database.write() as connection:
            head, states = _head_within(connection)
            state = _known(states, name, head)
            number = _begin_generation(connection, head, author)
            end_state(connection, number, state.module_id)
            write_event(connection, number, state.module_id, "drop", counts=(0, 0, state.facts))
        return number

    def declare(self, declaration: Declaration, *, author: str = "local") -> int:
        """Say what a relation is like, from a new generation on; gives its number."""
        with self._database.write() as connection:
            pending = PendingVocabulary(self._vocabulary, connection)
            head, _ = _head_within(connection)
            number = _begin_generation(connection, head, author)
            write_declaration(connection, number, pending.number(declaration.relation), declaration)
        pending.settle()
        return number

    # --- The index. ---

    def index(self, *, timeout_s: float | None = None) -> IndexStatus:
        """Wait until the index of vectors covers every fact, building it if need be; say how far it is."""
        return self._indexer.wait(timeout_s)

    # --- The end. ---

    def close(self) -> None:
        """Close the store. Safe to call twice."""
        self._indexer.close()
        self._database.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _publish(
    connection: Connection,
    pending: PendingVocabulary,
    staged: Sequence[Staged],
    author: str,
    if_match: dict[str, str],
) -> tuple[CommitReport, ...]:
    head, states = _head_within(connection)
    for name, etag in if_match.items():
        _check_etag(name, states.get(name), etag)
    tallies = [publish(connection, pending, it, states.get(it.change.module), head + 1) for it in staged]
    number = head
    if any(tally.anything for tally in tallies):
        number = _begin_generation(connection, head, author)
    return tuple(
        _settle(connection, number, it.change, states.get(it.change.module), tally)
        for it, tally in zip(staged, tallies, strict=True)
    )


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


def _head_within(connection: Connection) -> tuple[int, dict[str, State]]:
    head = connection.scalar(select(func.max(generation_table.c.number))) or 0
    return head, states_within(connection, head)


def _begin_generation(connection: Connection, head: int, author: str) -> int:
    last = connection.scalar(select(generation_table.c.at).where(generation_table.c.number == head))
    now = datetime.now(UTC)
    if last is not None:  # a clock that was set back must not put generations out of order
        now = max(now, datetime.fromisoformat(last) + timedelta(microseconds=1))
    stamp = now.isoformat(timespec="microseconds")
    connection.execute(insert(generation_table).values(number=head + 1, at=stamp, author=author))
    return head + 1


def _check_etag(name: str, state: State | None, etag: str) -> None:
    now = "none" if state is None else state.etag
    if (etag.strip() != "*" and etag.removeprefix("W/").strip().strip('"') != now.strip('"')) or state is None:
        raise PreconditionFailed(
            f"module {name!r} is not as you read it: its ETag is {now}, not {etag[:80]}; read it again, then decide"
        )


def _known(states: dict[str, State], name: str, head: int) -> State:
    if name not in states:
        raise UnknownModule(f"generation {head} has no module {name[:100]!r}; it has: {', '.join(states) or 'none'}")
    return states[name]


def _choose(states: Sequence[State], modules: Sequence[str], number: int) -> list[State]:
    by_name = {state.name: state for state in states}
    chosen = [_known(by_name, name, number) for name in dict.fromkeys(modules)]
    for state in chosen:
        if not state.mounted:
            raise ModuleNotMounted(f"module {state.name!r} is not mounted in generation {number}; mount it first")
    return chosen
