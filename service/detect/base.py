"""The boundary between the orchestrator and whatever looks at a step and says that it needs a fact.

Detectors are combinable: each is asked in turn about every finished line and about the answer, and the first that has
something to say is heard. That the core asks by itself, with a tag, needs no detector object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from knowledge_store.fact import Fact
from knowledge_store.generation import Generation
from knowledge_store.protocol import Query
from service.trace import Detector, TraceCall


@dataclass(frozen=True, slots=True)
class Draft:
    """A line of the thought, or the answer, just finished and not yet shown to anybody."""

    question: str
    text: str
    """Its prose, unescaped."""
    is_answer: bool
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    """One a token, natural logarithms; empty where no detector asked for them."""
    calls: Sequence[TraceCall]
    """Every call of the turn so far, this step's included."""
    own_calls: int
    """How many of these the step made itself."""


@dataclass(frozen=True, slots=True)
class Objection:
    """Take the step back and begin it with a lookup.

    `query` is the lookup where the detector knows it; with None the core is made to ask, in its own words.
    """

    detector: Detector
    reason: str
    query: Query | None = None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The memory holds just what the step states: cite it."""

    detector: Detector
    facts: tuple[Fact, ...]


Verdict = Objection | Confirmation | None


class StepDetector(Protocol):
    """Judges finished steps."""

    needs_logprobs: bool

    def judge(self, draft: Draft, generation: Generation) -> Verdict:
        """Say what is to be done with `draft`; None where it needs no fact, as far as this detector sees."""
        ...
