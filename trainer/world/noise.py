"""How people really type: lower case, typos, missing marks, words before and after the question.

A name that the turn copies (a subject or a value: in a call, in what the memory replies, in the answer) keeps its
spelling, so that the core learns to copy and never to correct. Now and then everything is typed in lower case, names
too: then the turn copies them from the question as they stand there, for the memory looks up either form.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from random import Random

from knowledge_store.protocol import (
    Call,
    CallKind,
    Step,
    SubjectQuery,
    Turn,
    ValueQuery,
    parse_query,
    parse_values,
    render_query,
)
from trainer.world.document import Document, Exchange
from trainer.world.lexicon import words

_BEFORE = ("please: ", "Hi. ", "Hello, ", "Question: ", "Quick one. ", "Hey, ", "so, ", "One more thing: ")
_AFTER = (" Thanks!", " please", " Thank you.", " Be brief.", " I need it for a report.")
_LOWER_NAMES = 0.1  # share of the rough dialogues with lookups that are in lower case, names and all

Query = ValueQuery | SubjectQuery


def roughen(document: Document, rng: Random, share: float = 0.2) -> Document:
    """Make some of the questions rough; `share` of the documents."""
    if not document.exchanges or rng.random() >= share:
        return document
    queries = [query for exchange in document.exchanges for query, _ in _lookups(exchange.turn)]
    if queries and rng.random() < _LOWER_NAMES:
        return _lower_all(document, queries)
    kept = _kept(document, queries)
    exchanges = (Exchange(_roughen(one.question, kept, rng), one.turn) for one in document.exchanges)
    return replace(document, exchanges=tuple(exchanges))


def _roughen(question: str, kept: frozenset[str], rng: Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return _lower_outside(question, kept)
    if kind < 0.45:
        end = max((end for _, end in _places(question, kept)), default=0)
        return question[:end] + question[end:].rstrip("?.")
    if kind < 0.65:
        return _typo(question, kept, rng)
    if kind < 0.85 or not question.endswith((".", "?", "!")):  # what follows «Repeat: …» is to be repeated
        return rng.choice(_BEFORE) + question
    return question + rng.choice(_AFTER)


# --- What stays as it is. -------------------------------------------------------------------------------------------


def _kept(document: Document, queries: Sequence[Query]) -> frozenset[str]:
    """What no change falls into: all that the turns quote, and what a puzzle speaks of."""
    texts = {text for claim in document.claims for text in (claim.subject, claim.relation, claim.value)}
    texts |= {text for query in queries for text in (_name(query), query.relation)}
    for exchange in document.exchanges:
        texts |= {value for _, values in _lookups(exchange.turn) for value in values}
        texts.add(exchange.turn.answer or "")
    return frozenset(texts) if document.claims or queries else _material() | texts


@cache
def _material() -> frozenset[str]:
    """The words that puzzles are made of: one that is misspelt in one place is another thing there."""
    return frozenset({*words().given_names, *words().nouns, "true", "false", "and", "or", "not"})


def _lookups(turn: Turn) -> list[tuple[Query, tuple[str, ...]]]:
    """What a turn asks its memory, and what that replies."""
    calls = [call for step in turn.steps for call in step.calls if call.kind is CallKind.LOOKUP]
    asked = [(parse_query(call.body), parse_values(call.reply or "")) for call in calls]
    return [(query, values) for query, values in asked if isinstance(query, Query)]


def _name(query: Query) -> str:
    return query.subject if isinstance(query, ValueQuery) else query.value


def _places(question: str, kept: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Where one of these stands as words of its own; places may overlap."""
    for text in kept:
        start = question.find(text) if text else -1
        while start >= 0:
            end = start + len(text)
            if not (question[max(start - 1, 0) : start].isalnum() or question[end : end + 1].isalnum()):
                yield start, end
            start = question.find(text, start + 1)


def _free(question: str, kept: Iterable[str]) -> list[bool]:
    """Of each character, whether it may change."""
    free = [True] * len(question)
    for start, end in _places(question, kept):
        free[start:end] = [False] * (end - start)
    return free


# --- Changes. -------------------------------------------------------------------------------------------------------


def _lower_outside(question: str, kept: frozenset[str]) -> str:
    free = _free(question, kept)
    return "".join(_lower(letter) if may else letter for letter, may in zip(question, free, strict=True))


def _lower(text: str) -> str:
    """Letter by letter: a sigma is written alike within a text and at its end."""
    return "".join(map(str.lower, text))


def _typo(question: str, kept: frozenset[str], rng: Random) -> str:
    free = _free(question, kept)
    places = [at for at in range(len(question) - 1) if question[at : at + 2].isalpha() and free[at] and free[at + 1]]
    if not places:
        return question
    at = rng.choice(places)
    before, here, there, after = question[:at], question[at], question[at + 1], question[at + 2 :]
    return before + rng.choice((there + here, there, here + here + there)) + after


def _lower_all(document: Document, queries: Sequence[Query]) -> Document:
    """The questions in lower case, and with them what the turns copy from them; not what the memory replied."""
    relations = frozenset(query.relation for query in queries)
    told: set[str] = set()
    exchanges = []
    for exchange in document.exchanges:
        turn = _lower_turn(exchange.turn, told)
        exchanges.append(Exchange(_lower_outside(exchange.question, relations), turn))
    return replace(document, exchanges=tuple(exchanges))


def _lower_turn(turn: Turn, told: set[str]) -> Turn:
    """A turn on a question in lower case; `told` takes what the memory says in it."""
    typed: set[str] = set()
    steps = []
    for step in turn.steps:
        parts: list[str | Call] = list(step.parts)
        for query, values in _lookups(Turn((step,), None)):
            name = _name(query)
            if name not in told:
                typed.add(name)
                parts = [_lower_part(part, name) for part in parts]
            told |= set(values)
        steps.append(Step(tuple(parts)))
    answer = turn.answer
    return Turn(tuple(steps), _lower(answer) if answer in typed - told else answer)


def _lower_part(part: str | Call, name: str) -> str | Call:
    if isinstance(part, str):
        before, found, after = part.rpartition(name)  # a lead ends in its name
        return before + _lower(found) + after
    query = parse_query(part.body) if part.kind is CallKind.LOOKUP else None
    match query:
        case ValueQuery(subject, relation) if subject == name:
            return replace(part, body=render_query(ValueQuery(_lower(name), relation)))
        case SubjectQuery(relation, value) if value == name:
            return replace(part, body=render_query(SubjectQuery(relation, _lower(name))))
        case _:
            return part
