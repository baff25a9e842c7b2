"""A lookup: in which order a query is tried, and what comes of it.

The order is exact key, alias, spelling, meaning; the first that gives anything ends it. A name of a subject is never
matched by meaning. Not here: the rows (``view.py``), the vectors (``index.py``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

from knowledge_store.fact import Fact
from knowledge_store.key import normalise
from knowledge_store.protocol import (
    NOT_FOUND,
    Query,
    RelationsQuery,
    SubjectQuery,
    TextQuery,
    ValueQuery,
    render_values,
)
from knowledge_store.view import View


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


def look_up(view: View, query: Query) -> Outcome:
    """Answer `query` from `view`."""
    match query:
        case ValueQuery(subject, relation):
            return _find_values(view, subject, relation)
        case SubjectQuery(relation, value):
            return _find_subjects(view, relation, value)
        case RelationsQuery(subject):
            return _find_relations(view, subject)
        case TextQuery():
            return Missing()
        case _:
            assert_never(query)


def _find_values(view: View, subject: str, relation: str) -> Outcome:
    relation_id = view.relation(relation)
    if relation_id is not None:
        facts = view.values(subject, relation_id)
        if facts:
            return _values(view, facts, relation_id, MatchKind.EXACT)
    return _find_values_by_alias(view, subject, relation, relation_id)


def _values(view: View, facts: tuple[Fact, ...], relation_id: int, match: MatchKind, score: float = 1.0) -> Outcome:
    if len(facts) > 1 and view.declarations.functional(relation_id):
        if len({normalise(it.value) for it in facts}) > 1:
            return Ambiguous(facts, match, score)
        facts = facts[:1]
    return Found(facts, match, score, render_values([it.value for it in facts]))


def _find_values_by_alias(view: View, subject: str, relation: str, relation_id: int | None) -> Outcome:
    inverse = view.declarations.by_inverse.get(normalise(relation))
    if inverse is not None:
        facts = view.subjects(subject, inverse)
        if facts:
            return Found(facts, MatchKind.ALIAS, 1.0, render_values([it.subject for it in facts]))
    if relation_id is None or relation_id not in view.declarations.by_relation:
        relation_id = view.declarations.by_alias.get(normalise(relation), relation_id)
    if relation_id is None:
        return Missing()
    found = [facts for name in (subject, *view.aliased(subject)) if (facts := view.values(name, relation_id))]
    if len(found) > 1:
        return Ambiguous(tuple(it for facts in found for it in facts), MatchKind.ALIAS, 1.0)
    return _values(view, found[0], relation_id, MatchKind.ALIAS) if found else Missing()


def _find_subjects(view: View, relation: str, value: str) -> Outcome:
    match, relation_id = MatchKind.EXACT, view.relation(relation)
    facts = view.subjects(value, relation_id) if relation_id is not None else ()
    if not facts:
        match, relation_id = MatchKind.ALIAS, view.declarations.by_alias.get(normalise(relation), relation_id)
        if relation_id is not None:
            names = (value, *view.aliased(value))
            facts = tuple(it for name in names for it in view.subjects(name, relation_id))
    if not facts:
        return Missing()
    return Found(facts, match, 1.0, render_values(_distinct(it.subject for it in facts)))


def _find_relations(view: View, subject: str) -> Outcome:
    match, facts = MatchKind.EXACT, view.of_subject(subject)
    if not facts:
        match, names = MatchKind.ALIAS, view.aliased(subject)
        found = [facts for name in names if (facts := view.of_subject(name))]
        if len(found) > 1:
            return Ambiguous(tuple(it for facts in found for it in facts), match, 1.0)
        facts = found[0] if found else ()
    if not facts:
        return Missing()
    return Found(facts, match, 1.0, render_values([f"{it.relation}: {it.value}" for it in facts]))


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
