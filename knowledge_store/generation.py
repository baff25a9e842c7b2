"""A generation: the finished, immutable state of the memory that a request pins and reads to its end.

Not here: what changes it (``store.py``), how a lookup goes (``lookup.py``).
"""

import time
from collections.abc import Iterator
from types import TracebackType

from knowledge_store.fact import Fact
from knowledge_store.lookup import Found, MatchKind, Outcome, look_up
from knowledge_store.meaning import Meaning
from knowledge_store.module import ModuleInfo
from knowledge_store.protocol import Query
from knowledge_store.timeline import GRACE, Pins
from knowledge_store.view import PAGE_LIMIT, Page, View

_KEPT = 16_384
_KEPT_LENGTH = 1_024
_SAFE_S = GRACE.total_seconds() / 2


class Generation:
    """A pinned generation, seen through some modules. Use it as a context manager; any thread may read from it."""

    def __init__(self, view: View, meaning: Meaning, pins: Pins) -> None:
        self._view = view
        self._meaning = meaning
        self._pins: Pins | None = pins
        self._safe_until = time.monotonic() + _SAFE_S

    @property
    def number(self) -> int:
        """The generation's number."""
        return self._view.number

    @property
    def modules(self) -> tuple[ModuleInfo, ...]:
        """The modules that are read, in order of precedence."""
        return tuple(state.info for state in self._view.states)

    def lookup(self, query: Query) -> Outcome:
        """Answer `query`; tens of microseconds for an exact key, so call it from an event loop without a thread.

        Raises:
            GenerationGone: nobody looked anything up for long, and another process dropped the generation.
            StoreUnavailable: the database did not answer.
        """
        if time.monotonic() > self._safe_until:
            self._renew()
        known = self._view.answers.get(query)
        if known is not None:
            return known
        outcome = look_up(self._view, self._meaning, query)
        # What was proposed by vectors may come out better once the index is complete, so it is not kept.
        if isinstance(outcome, Found) and outcome.match is not MatchKind.SEMANTIC and len(outcome.text) <= _KEPT_LENGTH:
            if len(self._view.answers) >= _KEPT:
                self._view.answers.clear()
            self._view.answers[query] = outcome
        return outcome

    def facts(
        self,
        *,
        subject: str | None = None,
        relation: str | None = None,
        value: str | None = None,
        module: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Give up to `limit` facts in the order of their making, overridden ones included.

        Raises:
            UnknownModule: `module` is not one of this generation's.
            InvalidFact: `cursor` is none of ours, or `limit` is not from 1 to 1,000.
        """
        return self._view.page(
            subject=subject, relation=relation, value=value, module=module, limit=limit, cursor=cursor
        )

    def every_fact(self, module: str) -> Iterator[Fact]:
        """Give all facts of a module, page by page: as many as there are, in constant memory.

        Raises:
            UnknownModule: it is not one of this generation's.
        """
        cursor: str | None = None
        while True:
            page = self.facts(module=module, limit=PAGE_LIMIT, cursor=cursor)
            yield from page.facts
            cursor = page.cursor
            if cursor is None:
                return

    def close(self) -> None:
        """Let go of the generation. Safe to call twice."""
        pins, self._pins = self._pins, None
        if pins is not None:
            pins.drop(self._view.number)

    def _renew(self) -> None:
        if self._pins is not None:
            self._pins.tell(self._view.number)
        self._safe_until = time.monotonic() + _SAFE_S

    def __enter__(self) -> "Generation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
