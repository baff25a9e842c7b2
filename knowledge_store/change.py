"""What a caller wants changed, and what came of it. Values only: ``staging.py`` and ``publish.py`` do the work."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from knowledge_store.fact import Fact

PROBLEM_LIMIT = 100
"""So many problems or conflicts are named; the rest is not collected."""


class Policy(StrEnum):
    """What a module does with a second value of a functional relation."""

    REJECT = "reject"  # the whole change is refused
    NEWEST = "newest"  # the later one supersedes the earlier
    KEEP = "keep"  # both stay, and the lookup answers Ambiguous


@dataclass(frozen=True, slots=True)
class FactChange:
    """A fact to upsert or delete. A deletion with value "" takes every value of (subject, relation)."""

    fact: Fact
    delete: bool = False
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a line of a change cannot be taken."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Change:
    """Facts for one module. `replace` leaves in the module what the change holds and nothing else.

    `facts` is read once, and may be a stream of any length; it may hold the problems that its reader met.
    """

    module: str
    mode: Literal["merge", "replace"]
    facts: Iterable[FactChange | Problem]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two values where a functional relation allows one. `kept` is the one that a lookup sees after the change."""

    subject: str
    relation: str
    kept: Fact
    other: Fact
    kept_line: int | None = None
    other_line: int | None = None

    @property
    def text(self) -> str:
        """One line for people."""

        def shown(fact: Fact, line: int | None) -> str:
            of = [f"line {line}"] if line else []
            of += [f"source {fact.source[:80]}"] if fact.source else []
            return f"{fact.value[:80]!r}" + (f" ({', '.join(of)})" if of else "")

        kept, other = shown(self.kept, self.kept_line), shown(self.other, self.other_line)
        return f"contradiction: «{self.subject[:80]} | {self.relation[:80]}» is {kept} and {other}"

    def document(self) -> dict[str, Any]:
        """Give the contradiction as JSON."""
        return {
            "subject": self.subject,
            "relation": self.relation,
            "kept": {**self.kept.document(), "line": self.kept_line},
            "other": {**self.other.document(), "line": self.other_line},
        }


@dataclass(frozen=True, slots=True)
class CommitReport:
    """What a commit did to one module. With a dry run: what it would do.

    `generation` is the generation that has the outcome: a new one, or the head where nothing changed. `conflicts` are
    the first hundred contradictions.
    """

    module: str
    generation: int
    added: int = 0
    changed: int = 0
    deleted: int = 0
    unchanged: int = 0
    conflicts: tuple[Conflict, ...] = field(default=())
    etag: str = ""
    dry_run: bool = False

    @property
    def anything(self) -> bool:
        """Whether anything changed."""
        return bool(self.added or self.changed or self.deleted)

    def document(self) -> dict[str, Any]:
        """Give the report as JSON."""
        conflicts = [conflict.document() for conflict in self.conflicts]
        return {**{name: getattr(self, name) for name in _REPORTED}, "conflicts": conflicts}


_REPORTED = ("module", "generation", "added", "changed", "deleted", "unchanged", "etag", "dry_run")
