"""What a lookup may come to. Values only; ``lookup.py`` makes them and gives them out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

from knowledge_store.fact import Fact
from knowledge_store.protocol import NOT_FOUND


class MatchKind(StrEnum):
    """How what was asked met what was found."""

    EXACT = "exact"
    ALIAS = "alias"
    SPELLING = "spelling"
    SEMANTIC = "semantic"


@dataclass(frozen=True, slots=True)
class Found:
    """Facts that answer. `text` is exactly what is injected."""

    facts: tuple[Fact, ...]
    match: MatchKind
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing answers; `suggestions` are near, for people. The core reads `text`."""

    suggestions: tuple[Fact, ...] = ()
    text: str = NOT_FOUND


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Several facts answer, and they disagree. The core reads `text`, which is that of a miss."""

    facts: tuple[Fact, ...]
    match: MatchKind
    score: float
    text: str = NOT_FOUND


Outcome = Found | Missing | Ambiguous


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """Give `outcome` as JSON, in the one shape that every surface shows."""
    document: dict[str, Any] = {
        "outcome": type(outcome).__name__.lower(),
        "text": outcome.text,
        "match": None,
        "score": None,
        "facts": [],
        "suggestions": [],
    }
    match outcome:
        case Missing(suggestions):
            document["suggestions"] = [it.document() for it in suggestions]
        case Found(facts, match, score) | Ambiguous(facts, match, score):
            document |= {"match": match.value, "score": score, "facts": [it.document() for it in facts]}
        case _:
            assert_never(outcome)
    return document
