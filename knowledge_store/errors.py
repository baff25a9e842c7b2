"""Everything the knowledge store raises on purpose.

KnowledgeError
├── ProtocolError         what a core wrote is not a call, or stands where no call may stand
├── InvalidFact           a fact, a name or a date breaks the rules of facts
├── ChangeRefused         a change was not made; nothing of it was kept
│   ├── InvalidChange     some of its facts are invalid; `problems` names the first hundred
│   ├── Contradiction     the module's policy refuses a second value; `conflicts` names both
│   ├── PreconditionFailed  the module moved since the ETag that the caller read
│   └── StagingLost       what was staged was swept away before it was published
├── UnknownModule         no such module in this generation
│   └── ModuleNotMounted  there is one, but it is switched off
├── UnknownGeneration     never made
│   └── GenerationGone    made, but dropped by a compaction
└── StoreUnavailable      the database or the disk did not do what it should
    ├── NotAStore         the file is no database, or another program's
    ├── StoreReadOnly     the store can be read but not written here
    ├── StoreFull         the disk is full
    ├── UnsafeLocation    the file system cannot carry a store safely
    ├── StoreDamaged      what was read is not what was written
    └── EmbedderMismatch  the store's vectors were made by another embedder
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knowledge_store.change import Conflict, Problem


class KnowledgeError(Exception):
    """Base of every error of this package; its text says what to do."""


class ProtocolError(KnowledgeError):
    """A core's text breaks the protocol between a core and its memory."""


class InvalidFact(KnowledgeError, ValueError):
    """A fact, a name or a date breaks the rules of facts."""


class ChangeRefused(KnowledgeError):
    """A change was not made; nothing of it was kept."""


class InvalidChange(ChangeRefused, ValueError):
    """Some facts of a change are invalid; `problems` holds the first hundred."""

    def __init__(self, problems: "tuple[Problem, ...]") -> None:
        self.problems = problems
        shown = "; ".join(f"line {problem.line}: {problem.message}" for problem in problems[:3])
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        super().__init__(f"nothing was changed: {shown}{more}")


class Contradiction(ChangeRefused, ValueError):
    """The module's policy refuses a second value of a functional relation; `conflicts` holds the first hundred."""

    def __init__(self, module: str, conflicts: "tuple[Conflict, ...]") -> None:
        self.conflicts = conflicts
        first = conflicts[0]
        super().__init__(
            f"nothing was changed: module {module!r} refuses contradictions, and «{first.subject} | {first.relation}» "
            f"would be both {first.kept.value[:80]!r} and {first.other.value[:80]!r} ({len(conflicts)} in all); "
            "delete one value in the same change, or choose another policy for the module"
        )


class PreconditionFailed(ChangeRefused):
    """The module moved since the ETag that the caller read."""


class StagingLost(ChangeRefused):
    """What was staged was swept away before it was published."""


class UnknownModule(KnowledgeError, LookupError):
    """No such module in this generation."""


class ModuleNotMounted(UnknownModule):
    """The module exists but is switched off."""


class UnknownGeneration(KnowledgeError, LookupError):
    """No such generation was ever made."""


class GenerationGone(UnknownGeneration):
    """The generation was dropped by a compaction."""


class StoreUnavailable(KnowledgeError):
    """The database or the disk did not do what it should."""


class NotAStore(StoreUnavailable):
    """The file is no database, or another program's."""


class StoreReadOnly(StoreUnavailable):
    """The store can be read but not written here."""


class StoreFull(StoreUnavailable):
    """The disk is full; the last generation is intact."""


class UnsafeLocation(StoreUnavailable):
    """The file system cannot carry a store safely."""


class StoreDamaged(StoreUnavailable):
    """What was read is not what was written."""


class EmbedderMismatch(StoreUnavailable):
    """The store's vectors were made by another embedder."""
