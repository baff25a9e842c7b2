"""Free text: which fact does a phrase ask for?

The names of subjects that stand in the text decide what it is about, and the words that are left decide the relation.
The vectors only propose; nothing is answered whose name the text does not hold.
Not here: keyed queries (``lookup.py``).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rapidfuzz import fuzz

from knowledge_store.fact import Fact
from knowledge_store.key import normalise
from knowledge_store.meaning import Meaning
from knowledge_store.outcome import Ambiguous, Found, MatchKind, Missing, Outcome
from knowledge_store.protocol import render_values
from knowledge_store.view import View

_WORDS = 32
_LONGEST_NAME = 8
_EDGE = " \t?!.,;:\"'«»“”‘’()[]"
_SHORTEST = 6
"""Shorter names must stand in the text letter by letter; of longer ones, all but one letter."""


@dataclass(frozen=True, slots=True)
class _Mention:
    facts: tuple[Fact, ...]
    rest: str  # the text without the name


def find_in_text(view: View, meaning: Meaning, text: str) -> Outcome:
    """Answer a phrase such as ``the capital of France``."""
    mentions = _mentions(view, [word.strip(_EDGE) for word in text.split()[:_WORDS]])
    proposed: tuple[tuple[Fact, ...], ...] = ()
    if not mentions:
        proposed = meaning.propose(view, text)
        mentions = list(_near_mentions(proposed, text))
    answers = [(facts, score) for mention in mentions for facts, score in _answers(meaning, mention)]
    best = max((score for _, score in answers), default=0.0)
    facts = tuple(it for some, score in answers if score == best for it in some)
    if not facts:
        named = tuple(it for mention in mentions for it in mention.facts)[:3]
        return Missing(named or tuple(meaning.likest(text, group) for group in proposed[:3]))
    distinct = {(normalise(it.subject), normalise(it.relation)) for it in facts}
    relation_id = view.relation(facts[0].relation)
    several = len({normalise(it.value) for it in facts}) > 1
    if len(distinct) > 1 or (several and view.declarations.functional(relation_id)):
        return Ambiguous(facts, MatchKind.SEMANTIC, best)
    return Found(facts, MatchKind.SEMANTIC, best, render_values(list(dict.fromkeys(it.value for it in facts))))


def _mentions(view: View, words: list[str]) -> list[_Mention]:
    """Find the names that stand in the text, the longest first; a name within a longer one is not seen."""
    spans = [
        range(start, start + size)
        for size in range(min(_LONGEST_NAME, len(words)), 0, -1)
        for start in range(len(words) - size + 1)
    ]
    names = {span: _names(" ".join(words[span.start : span.stop])) for span in spans}
    known = view.known([it for some in names.values() for it in some])
    taken: set[int] = set()
    found: list[_Mention] = []
    for span in spans:
        if taken.isdisjoint(span) and not known.isdisjoint(names[span]):
            facts = _facts_of(view, names[span])
            if facts:
                taken.update(span)
                rest = " ".join(word for place, word in enumerate(words) if place not in span)
                found.append(_Mention(facts, normalise(rest)))
    return found


def _names(text: str) -> list[str]:
    """Give the normal forms of what may be a name, without and with a possessive's ending."""
    name = normalise(text)
    return list(dict.fromkeys(it for it in (name, name.removesuffix("'s").removesuffix("’s")) if it))


def _facts_of(view: View, names: list[str]) -> tuple[Fact, ...]:
    for it in names:
        facts = view.of_subject(it) or tuple(fact for subject in view.aliased(it) for fact in view.of_subject(subject))
        if facts:
            return facts
    return ()


def _near_mentions(proposed: tuple[tuple[Fact, ...], ...], text: str) -> Iterable[_Mention]:
    key = normalise(text)
    for facts in proposed:
        name = normalise(facts[0].subject)
        if not _SHORTEST <= len(name) <= len(key) or not _digits(name) <= _digits(key):
            continue
        place = fuzz.partial_ratio_alignment(name, key, score_cutoff=100.0 * (1.0 - 1.0 / len(name)) - 0.1)
        if place is not None:
            yield _Mention(facts, f"{key[: place.dest_start]} {key[place.dest_end :]}")


def _digits(text: str) -> set[str]:
    return {word for word in text.split() if any(character.isdigit() for character in word)}


def _answers(meaning: Meaning, mention: _Mention) -> Iterable[tuple[tuple[Fact, ...], float]]:
    """Give the relations that the rest of the text names, or else means."""
    by_relation: dict[str, list[Fact]] = {}
    for it in mention.facts:
        by_relation.setdefault(normalise(it.relation), []).append(it)
    padded = f" {mention.rest} "
    named = [relation for relation in by_relation if f" {relation} " in padded]
    whole = [it for it in named if not any(it != other and f" {it} " in f" {other} " for other in named)]
    if whole:
        for relation in whole:
            yield tuple(by_relation[relation]), 1.0
    else:
        meant, score = meaning.choose(mention.rest, list(by_relation))
        for relation in meant:
            yield tuple(by_relation[relation]), score
