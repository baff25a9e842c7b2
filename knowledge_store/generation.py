"""A generation: the finished, immutable state of the memory that a request pins and reads to its end.

Not here: what changes it (``store.py``), how a lookup goes (``lookup.py``).
"""

from collections.abc import Callable
from types import TracebackType

from knowledge_store.lookup import Outcome, look_up
from knowledge_store.meaning import Meaning
from knowledge_store.module import ModuleInfo
from knowledge_store.protocol import Query
from knowledge_store.view import Page, View


class Generation:
    """A pinned generation, seen through some modules. Use it as a context manager; any thread may read from it."""

    def __init__(self, view: View, meaning: Meaning, release: Callable[[int], None]) -> None:
        self._view = view
        self._meaning = meaning
        self._release: Callable[[int], None] | None = release

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
            StoreUnavailable: the database did not answer.
        """
        return look_up(self._view, self._meaning, query)

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

    def close(self) -> None:
        """Let go of the generation. Safe to call twice."""
        release, self._release = self._release, None
        if release is not None:
            release(self._view.number)

    def __enter__(self) -> "Generation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
