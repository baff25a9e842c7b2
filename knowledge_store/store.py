"""The store: what changes. It opens a database, commits changes, and hands out generations.

Not here: what a change does row by row (``staging.py``, ``publish.py``), reading (``generation.py``), backups and
checks (``care.py``).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType

from knowledge_store import erasure, staging, timeline
from knowledge_store.change import Change, CommitReport, Policy
from knowledge_store.commit import commit_rollback, commit_staged
from knowledge_store.database import Database
from knowledge_store.declaration import Declaration, write_declaration
from knowledge_store.embed import Embedder
from knowledge_store.erasure import CompactionReport
from knowledge_store.errors import InvalidFact, UnknownGeneration
from knowledge_store.fact import Fact, check_declaration_name, check_module_name
from knowledge_store.generation import Generation
from knowledge_store.indexer import Indexer, IndexStatus
from knowledge_store.meaning import Meaning
from knowledge_store.migration import chosen_embedder, index_place, prepare
from knowledge_store.module import (
    ModuleInfo,
    State,
    end_state,
    known_state,
    states_within,
    write_event,
    write_state,
)
from knowledge_store.publish import prepare_replacement
from knowledge_store.rollback import Difference, Place, difference
from knowledge_store.snapshot import Snapshots
from knowledge_store.staging import Staged
from knowledge_store.timeline import GRACE, HistoryEntry, begin_generation, head_within
from knowledge_store.vocabulary import PendingVocabulary, Vocabulary

_VIEWS = 64


class Store:
    """An open knowledge store. Every method may be called from any thread."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        store_id, folder = index_place(database)
        self._indexer = Indexer(database, embedder, folder, store_id)
        meaning = Meaning(embedder, self._indexer)
        self._vocabulary = Vocabulary(database)
        self._snapshots = Snapshots(database, self._vocabulary, self._indexer, meaning, store_id)

    @classmethod
    def open(cls, location: str | Path, *, embedder: Embedder | None = None) -> "Store":
        """Open the store at `location`, a path or an SQLAlchemy URL; a new one is made where there is none.

        Raises:
            NotAStore: the file is no database, or another program's.
            EmbedderMismatch: the store's vectors were made by another embedder than `embedder`.
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
        return self._snapshots.head

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
            GenerationGone: it was dropped by a compaction.
            UnknownModule: a module does not exist in it, or is not mounted.
        """
        return self._snapshots.generation(number, as_of=as_of, modules=modules)

    def modules(self) -> tuple[ModuleInfo, ...]:
        """Give all modules of the head, unmounted ones included, in order of precedence."""
        return tuple(state.info for state in self._snapshots.states())

    def history(
        self, *, module: str | None = None, limit: int = 100, before: int | None = None
    ) -> tuple[HistoryEntry, ...]:
        """Say who changed what when, the newest first, from generation `before` backwards if given."""
        with self._database.read() as connection:
            return timeline.history(connection, module, limit, before)

    @contextmanager
    def difference(self, module: str, before: int, after: int) -> Iterator[Iterator[Difference]]:
        """Compare a module in two generations, streaming: ``with store.difference("m", 3, 5) as differences: …``.

        Raises:
            GenerationGone: one of them was dropped by a compaction.
            UnknownModule: neither has the module.
        """
        with self._database.read() as connection:
            places = []
            for number in (before, after):
                timeline.check_kept(connection, number)
                state = states_within(connection, number).get(module)
                places.append(Place(None if state is None else state.layer_id, number))
            if places[0].layer_id is None and places[1].layer_id is None:
                known_state({}, module, after)
            yield difference(connection, module, *places)

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
        staged = self.stage(changes)
        return self.publish(staged, author=author, if_match=if_match, dry_run=dry_run)

    def stage(self, changes: Sequence[Change]) -> list[Staged]:
        """Do what takes long: read the changes, write them out of sight, compare. `publish` or `discard` them then.

        Raises:
            InvalidChange: some facts are invalid; nothing is left behind.
        """
        staged: list[Staged] = []
        try:
            for change in changes:  # one by one: what is staged already must be swept if the next one fails
                it = staging.stage(self._database, self._vocabulary, change)
                staged.append(it)
                if it.durable and change.mode == "replace":
                    with self._database.write() as connection:
                        _, states = head_within(connection)
                        prepare_replacement(connection, it, states.get(change.module))
        except BaseException:
            self.discard(staged)
            raise
        return staged

    def publish(
        self,
        staged: Sequence[Staged],
        *,
        author: str = "local",
        if_match: dict[str, str] | None = None,
        dry_run: bool = False,
    ) -> tuple[CommitReport, ...]:
        """Make what is staged one new generation; as `commit_all`."""
        try:
            with self._database.write(rehearse=dry_run) as connection:
                pending = PendingVocabulary(self._vocabulary, connection)
                reports = commit_staged(connection, pending, staged, author, if_match or {})
        except BaseException:
            self.discard(staged)
            raise
        if dry_run:
            self.discard(staged)
            return tuple(replace(report, dry_run=True) for report in reports)
        pending.settle()
        return reports

    def discard(self, staged: Sequence[Staged]) -> None:
        """Sweep away what was staged and shall not be published."""
        for it in staged:
            staging.discard(self._database, it)

    def redact(self, fact: Fact, *, author: str = "local") -> int:
        """Erase a value, or with value "" every value of (subject, relation), from all history of `fact.module`.

        What is left says who erased something of which key, not what. Gives the number of rows that are gone.

        Raises:
            UnknownModule: there is no such module.
        """
        with self._database.write() as connection:
            head, states = head_within(connection)
            count = erasure.erase(connection, fact, known_state(states, fact.module, head), head, author)
        self._database.scrub()
        self._snapshots.notice(self.head)
        return count

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
            head, states = head_within(connection)
            state = known_state(states, name, head)
            after = change(state)
            if after != state:
                number = begin_generation(connection, head, author)
                write_state(connection, number, after)
                write_event(connection, number, state.module_id, operation, detail=detail)
        return after.info

    def drop_module(self, name: str, *, author: str = "local") -> int:
        """Take the module out; earlier generations keep it. Gives the new generation's number.

        Raises:
            UnknownModule: there is no such module.
        """
        with self._database.write() as connection:
            head, states = head_within(connection)
            state = known_state(states, name, head)
            number = begin_generation(connection, head, author)
            end_state(connection, number, state.module_id)
            write_event(connection, number, state.module_id, "drop", counts=(0, 0, state.facts))
        return number

    def rollback(self, name: str, generation: int, *, author: str = "local") -> CommitReport:
        """Let the module hold again what it held in `generation`, as a new generation.

        Raises:
            UnknownGeneration: there is no such generation, or it was dropped.
            UnknownModule: the module was not there then.
        """
        with self._database.write() as connection:
            head, states = head_within(connection)
            if not 0 <= generation <= head:
                raise UnknownGeneration(f"there is no generation {generation}; the newest is {head}")
            timeline.check_kept(connection, generation)
            then = known_state(states_within(connection, generation), name, generation)
            return commit_rollback(connection, head, states.get(name), then, generation, author)

    def declare(self, declaration: Declaration, *, author: str = "local") -> int:
        """Say what a relation is like, from a new generation on; gives its number.

        Raises:
            InvalidFact: a name of it is blank or too long.
        """
        check_declaration_name(declaration.relation, *declaration.aliases, declaration.inverse or declaration.relation)
        with self._database.write() as connection:
            pending = PendingVocabulary(self._vocabulary, connection)
            head, _ = head_within(connection)
            number = begin_generation(connection, head, author)
            write_declaration(connection, number, pending.number(declaration.relation), declaration)
            write_event(connection, number, 0, "declare", detail=declaration.relation)
        pending.settle()
        return number

    # --- Care. ---

    def index(self, *, timeout_s: float | None = None) -> IndexStatus:
        """Wait until the index of vectors covers every fact, building it if need be; say how far it is."""
        return self._indexer.wait(timeout_s)

    def index_status(self) -> IndexStatus:
        """Say how far the index is, without waiting."""
        return self._indexer.status()

    def compact(self, older_than: timedelta, *, grace: timedelta = GRACE) -> CompactionReport:
        """Drop the generations that ceased to be the head longer ago than `older_than` and that nobody reads.

        `grace` is how long other processes may read a former head without saying so.
        """
        return erasure.compact(self._database, self._snapshots.pins, max(older_than, grace))

    @property
    def database(self) -> Database:
        """The database underneath, for ``care.py``."""
        return self._database

    @property
    def indexer(self) -> Indexer:
        """The keeper of the index, for ``care.py``."""
        return self._indexer

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
