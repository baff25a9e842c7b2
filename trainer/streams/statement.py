"""Finds text that states a target fact: an anchor on it would distil the fact back. Read by `neutral.index_lines`.

A text counts as stating a fact where it holds the words of the subject and those of the value, in whatever order and
however far apart, without regard to case and punctuation. Inflected names and aliases are not found.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

from trainer.fact import Target

_SINGLE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # kana and Chinese characters, which no space parts
_WORD = re.compile(rf"[{_SINGLE}]|[^\W_{_SINGLE}]+")


class Statements:
    """The facts, by the words of their subjects; a text is read once, however many facts there are."""

    def __init__(self, facts: Iterable[Target]) -> None:
        self._values = defaultdict[str, set[str]](set)
        self._sizes = defaultdict[str, set[int]](set)
        """By a subject's first word: how many words such subjects have."""
        for fact in facts:
            words = _words(fact.subject)
            self._values[" ".join(words)].add(" ".join(_words(fact.value)))
            self._sizes[words[0]].add(len(words))

    def are_in(self, text: str) -> bool:
        """Whether the text holds the subject and the value of a fact."""
        words = _WORD.findall(text.casefold())
        joined, plain = f" {' '.join(words)} ", text.casefold()
        for at, word in enumerate(words):
            for size in self._sizes.get(word, ()):
                values = self._values.get(" ".join(words[at : at + size]), ())
                if any(f" {value} " in joined or (not _WORD.search(value) and value in plain) for value in values):
                    return True
        return False


def _words(name: str) -> list[str]:
    """A name's words; one of signs alone, such as €, is its own word."""
    return _WORD.findall(name.casefold()) or [name.casefold()]
