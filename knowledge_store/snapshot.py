"""The reading side of an open store: its head, and the generations that are handed out.

Not here: what is read (``view.py``), what changes (``store.py``).
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from weakref import WeakSet

from sqlalchemy import bindparam, func, select

from knowledge_store import timeline
from knowledge_store.database import Database, translated
from knowledge_store.declaration import DeclarationReader
from knowledge_store.errors import UnknownGeneration
from knowledge_store.generation import Generation
from knowledge_store.indexer import Indexer
from knowledge_store.meaning import Meaning
from knowledge_store.migration import index_place
from knowledge_store.module import Catalog, State, choose_states
from knowledge_store.schema import generation as generation_table
from knowledge_store.schema import meta
from knowledge_store.timeline import Pins
from knowledge_store.view import Statements, View
from knowledge_store.vocabulary import Vocabulary

_VIEWS = 64


class Snapshots:
    """Hands out generations, and notices what other processes do to the store."""

    def __init__(
        self, database: Database, vocabulary: Vocabulary, indexer: Indexer, meaning: Meaning, identity: str
    ) -> None:
        self.pins = Pins(database)
        self._database = database
        self._indexer = indexer
        self._meaning = meaning
        self._vocabulary = vocabulary
        self._catalog = Catalog(database)
        self._declarations = DeclarationReader(database)
        self._statements = Statements(database)
        newest = select(func.max(generation_table.c.number)).scalar_subquery()
        named = select(meta.c.value).where(meta.c.key == bindparam("key")).scalar_subquery()
        self._head_sql = database.compile(select(newest, named), "key")
        self._identity = identity
        self._views: OrderedDict[tuple[int, tuple[str, ...] | None, str], View] = OrderedDict()
        self._live: WeakSet[View] = WeakSet()
        self._seen = -1
        self._lock = threading.Lock()

    @property
    def head(self) -> int:
        """The number of the newest generation; 0 in a new store. Sees what other processes committed."""
        with translated(self._database.driver_error):
            number, identity = self._database.reader().execute(self._head_sql, ("store",)).fetchone()
        if identity != self._identity:  # somebody restored a backup
            self._forget()
        number = int(number or 0)
        if number != self._seen:
            self.notice(number)
        return number

    def notice(self, head: int) -> None:
        """Take note of a new head: what made it may have been a redaction, so no view answers from memory."""
        self._seen = head
        with self._lock:
            for view in self._live:
                view.answers.clear()

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
        head = self.head
        if number is not None and as_of is not None:
            raise ValueError("ask for a generation by its number or by a time, not by both")
        if as_of is not None:
            with self._database.read() as connection:
                number = timeline.head_at(connection, as_of)
        if number is None:
            number = head
        elif not 0 <= number <= head:
            raise UnknownGeneration(f"there is no generation {number}; the newest is {head}")
        self.pins.take(number)
        try:
            if number != head:
                self.pins.tell(number)
            return Generation(self._view(number, modules), self._meaning, self.pins)
        except BaseException:
            self.pins.drop(number)
            raise

    def _view(self, number: int, modules: Sequence[str] | None) -> View:
        key = (number, None if modules is None else tuple(modules), datetime.now(UTC).date().isoformat())
        with self._lock:
            view = self._views.get(key)
        if view is not None:
            return view
        with translated(self._database.driver_error):
            states = self._catalog.at(number)
            declarations = self._declarations.at(number)
        chosen = [it for it in states if it.mounted] if modules is None else choose_states(states, modules, number)
        view = View(self._database, self._statements, self._vocabulary, declarations, chosen, number, key[2])
        with self._lock:
            self._live.add(view)
            self._views[key] = view
            while len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        return view

    def _forget(self) -> None:
        """Drop all that is remembered of the database's content."""
        self._identity, _ = index_place(self._database)
        self._indexer.restart(self._identity)
        self._vocabulary.forget()
        with self._lock:
            self._views.clear()

    def states(self) -> tuple[State, ...]:
        """Give all modules of the head, in order of precedence."""
        head = self.head
        with translated(self._database.driver_error):
            return self._catalog.at(head)
