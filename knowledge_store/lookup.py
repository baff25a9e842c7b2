"""A lookup: in which order a query is tried, and what comes of it.

The order is exact key, alias, spelling, meaning; the first that gives anything ends it. A subject is met by its name,
at most one slip of the pen away, never by meaning; a relation may be met by meaning among those that the subject has.
Not here: the rows (``view.py``), free text (``phrase.py``), the vectors (``index.py``).
"""

from collections.abc import Iterable
from typing import assert_never

from knowledge_store.fact import Fact
from knowledge_store.key import normalise
from knowledge_store.meaning import Meaning
from knowledge_store.outcome import Ambiguous, Found, MatchKind, Missing, Outcome, outcome_document
from knowledge_store.phrase import find_in_text
from knowledge_store.protocol import Query, RelationsQuery, SubjectQuery, TextQuery, ValueQuery, escape, render_values
from knowledge_store.spelling import one_edit_apart
from knowledge_store.view import View

__all__ = ["Ambiguous", "Found", "MatchKind", "Missing", "Outcome", "look_up", "outcome_document"]


def look_up(view: View, meaning: Meaning, query: Query) -> Outcome:
    """Answer `query` from `view`."""
    match query:
        case ValueQuery(subject, relation):
            relation_id = view.relation(relation)
            facts = view.values(subject, relation_id) if relation_id is not None else ()
            if facts:
                if len(facts) == 1:  # nearly always; and what is asked most should cost least
                    return Found(facts, MatchKind.EXACT, 1.0, escape(facts[0].value))
                return _values(view, facts, MatchKind.EXACT)
            return _find_values(view, meaning, subject, relation, relation_id)
        case SubjectQuery(relation, value):
            return _find_subjects(view, meaning, relation, value)
        case RelationsQuery(subject):
            return _find_relations(view, subject)
        case TextQuery(text):
            return find_in_text(view, meaning, text)
        case _:
            assert_never(query)


def _values(view: View, facts: tuple[Fact, ...], match: MatchKind, score: float = 1.0) -> Outcome:
    relation_id = view.relation(facts[0].relation)
    if len(facts) > 1 and view.declarations.functional(relation_id):
        if len({normalise(it.value) for it in facts}) > 1:
            return Ambiguous(facts, match, score)
        facts = facts[:1]
    return Found(facts, match, score, render_values([it.value for it in facts]))


def _of_several(view: View, found: list[tuple[Fact, ...]], match: MatchKind, score: float = 1.0) -> Outcome | None:
    """One group of facts answers, several disagree, none is no answer."""
    if len(found) > 1:
        return Ambiguous(tuple(it for facts in found for it in facts), match, score)
    return _values(view, found[0], match, score) if found else None


def _find_values(view: View, meaning: Meaning, subject: str, relation: str, relation_id: int | None) -> Outcome:
    inverse = view.declarations.by_inverse.get(normalise(relation))
    if inverse is not None:
        facts = view.subjects(subject, inverse)
        if facts:
            return Found(facts, MatchKind.ALIAS, 1.0, render_values(_distinct(it.subject for it in facts)))
    declared = view.declarations.by_alias.get(normalise(relation))
    known = declared is not None or relation_id is not None
    names = (subject, *view.aliased(subject))
    ids = [it for it in (relation_id, declared) if it is not None]
    found = [facts for name in names for it in ids if (facts := view.values(name, it))]
    outcome = _of_several(view, found, MatchKind.ALIAS)
    if outcome is not None:
        return outcome
    held = [facts for name in names if (facts := view.of_subject(name))]
    if held:
        facts = tuple(it for some in held for it in some)
        # The name is right. A relation that the store knows is right, too: this subject just doesn't have it.
        return Missing(facts[:3]) if known else _find_relation(view, meaning, relation, facts)
    return _find_misspelled(view, subject, ids) if known and not view.ever_knew(subject) else Missing()


def _find_relation(view: View, meaning: Meaning, relation: str, facts: tuple[Fact, ...]) -> Outcome:
    near, match, score = _near_relations(meaning, relation, facts)
    return _of_several(view, near, match, score) or Missing(facts[:3])


def _near_relations(
    meaning: Meaning, relation: str, facts: tuple[Fact, ...]
) -> tuple[list[tuple[Fact, ...]], MatchKind, float]:
    """Give those of `facts` whose relation is `relation` misspelled, or else in other words; a group a relation."""
    key = normalise(relation)
    near = _grouped(it for it in facts if one_edit_apart(normalise(it.relation), key))
    if near:
        return near, MatchKind.SPELLING, _likeness(key)
    meant, score = meaning.choose(relation, _distinct(it.relation for it in facts))
    return [tuple(it for it in facts if it.relation == name) for name in meant], MatchKind.SEMANTIC, score


def _find_misspelled(view: View, subject: str, ids: list[int]) -> Outcome:
    names = view.one_edit_from(subject)
    found = [facts for name in names for it in ids if (facts := view.values(name, it))]
    score = _likeness(normalise(subject))
    if len(names) > 1 and found:
        return Ambiguous(tuple(it for facts in found for it in facts), MatchKind.SPELLING, score)
    return _of_several(view, found, MatchKind.SPELLING, score) or Missing(
        tuple(it for name in names for it in view.of_subject(name))[:3]
    )


def _find_subjects(view: View, meaning: Meaning, relation: str, value: str) -> Outcome:
    match, score, known = MatchKind.EXACT, 1.0, view.relation(relation)
    facts = view.subjects(value, known) if known is not None else ()
    if not facts:
        match, known = MatchKind.ALIAS, view.declarations.by_alias.get(normalise(relation), known)
        if known is not None:
            facts = tuple(it for name in (value, *view.aliased(value)) for it in view.subjects(name, known))
    if not facts:
        held = view.of_value(value)
        # A relation that the store knows is right: nothing just has this value in it.
        near, match, score = ([], match, score) if known is not None else _near_relations(meaning, relation, held)
        if len(near) > 1:
            return Ambiguous(tuple(it for some in near for it in some), match, score)
        if not near:
            return Missing(held[:3])
        facts = near[0]
    return Found(facts, match, score, render_values(_distinct(it.subject for it in facts)))


def _find_relations(view: View, subject: str) -> Outcome:
    facts = view.of_subject(subject)
    if facts:
        return _relations(facts, MatchKind.EXACT)
    named = [some for name in view.aliased(subject) if (some := view.of_subject(name))]
    match, score = MatchKind.ALIAS, 1.0
    if not named and not view.ever_knew(subject):
        named = [view.of_subject(name) for name in view.one_edit_from(subject)]
        match, score = MatchKind.SPELLING, _likeness(normalise(subject))
    if len(named) > 1:
        return Ambiguous(tuple(it for some in named for it in some), match, score)
    return _relations(named[0], match, score) if named else Missing()


def _relations(facts: tuple[Fact, ...], match: MatchKind, score: float = 1.0) -> Outcome:
    return Found(facts, match, score, render_values([f"{it.relation}: {it.value}" for it in facts]))


def _likeness(key: str) -> float:
    """Give the share of a name that one edit leaves."""
    return 1.0 - 1.0 / len(key)


def _grouped(facts: Iterable[Fact]) -> list[tuple[Fact, ...]]:
    groups: dict[str, list[Fact]] = {}
    for it in facts:
        groups.setdefault(normalise(it.relation), []).append(it)
    return [tuple(group) for group in groups.values()]


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
