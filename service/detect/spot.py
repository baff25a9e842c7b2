"""Finds the subjects in a text that a generation of the store knows, by their names and aliases.

Asks the store and nothing else: no list of names, no model. Used by the detectors.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from knowledge_store.fact import Fact
from knowledge_store.generation import Generation
from knowledge_store.lookup import Found, MatchKind
from knowledge_store.protocol import RelationsQuery

_WORD = re.compile(r"\w+(?:['’.-]\w+)*")
_POSSESSIVE = re.compile(r"['’]s\Z")
_LONGEST_NAME_WORDS = 6
_MOST_PROBES = 160


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject that a text names, with what is known of it."""

    name: str
    facts: tuple[Fact, ...]


def spot_subjects(text: str, generation: Generation) -> list[Subject]:
    """List the subjects that `text` names, longest names first at each place; a name in a longer one is not listed."""
    found: list[Subject] = []
    end = 0
    for probes, (start, stop, name) in enumerate(_candidates(text)):
        if probes >= _MOST_PROBES:
            break
        if start < end:
            continue
        outcome = generation.lookup(RelationsQuery(name))
        if isinstance(outcome, Found) and outcome.match in (MatchKind.EXACT, MatchKind.ALIAS):
            found.append(Subject(name, outcome.facts))
            end = stop
    return found


def _candidates(text: str) -> Iterator[tuple[int, int, str]]:
    """Give runs of words that begin with a capital or a digit, in order of place, longest first."""
    words = list(_WORD.finditer(text))
    for first, word in enumerate(words):
        if not (word[0][0].isupper() or word[0][0].isdigit()):
            continue
        for last in range(min(first + _LONGEST_NAME_WORDS, len(words)) - 1, first - 1, -1):
            name = text[word.start() : words[last].end()]
            bare = _POSSESSIVE.sub("", name)
            yield word.start(), words[last].end(), bare
