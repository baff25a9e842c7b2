"""Does every value in an answer stand in an injected fact, a computed result or the question itself?

Pure functions of texts: they know no store and no model. What the core claims to have used counts for nothing; the
evidence is what was injected and what was asked.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from knowledge_store.protocol import CallKind, parse_values, unescape
from service.trace import Outcome, TraceCall

ABSTENTION = "I don't know"

_ABSTAINS = re.compile(r"\W*(?:sorry[,.]? )?i (?:do not|don['’]?t|cannot|can['’]?t) (?:know|tell|say|answer)\b")
_VERDICTS = frozenset({"yes", "no", "true", "false"})
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(rf"{NUMBER.pattern}|\w+(?:['’]\w+)?")
_QUOTED = re.compile(r'["“«]([^"“”«»]+)["”»]')
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_PARTS = re.compile(r";\s+|,\s+(?:and\s+|or\s+)?|\s+and\s+|\s+or\s+|\n+")
_SMALL = frozenset(
    re.findall(
        r"\w+",
        """a about also am an and are as at be been but by did do does for from had has have he her his i in is it
        its my no not of on only or our she so than that the their then there they this to was we were what which
        who whose with yes you your""",
    )
)


def abstains(answer: str) -> bool:
    """Whether `answer` says that the core doesn't know."""
    return _ABSTAINS.match(answer.casefold()) is not None


def is_grounded(answer: str, question: str, calls: Sequence[TraceCall], confirmed: Sequence[str] = ()) -> bool | None:
    """Say whether each value in `answer` has its evidence; None where it holds no value.

    Evidence is the question, what calls gave, and values that a detector found `confirmed` by the memory.

    An answer that is a phrase of one piece of evidence, or a list of such phrases, is grounded as a whole. Of any
    other, the values are its numbers, quotations and capitalised names, or, where it has none of these, its content
    words. A bare yes or no is grounded by a comparison, whichever way round it was put,
    and holds no value otherwise.
    """
    bare = " ".join(_words(answer))
    if not bare or abstains(answer):
        return None
    if bare in _VERDICTS:
        compared = any(call.kind is CallKind.CALC and call.reply in _VERDICTS for call in calls)
        return True if compared else None
    evidence = [f" {' '.join(_words(text))} " for text in (question, *evidence_of(calls), *confirmed)]
    if _stands(answer, evidence):
        return True
    parts = [part for part in _PARTS.split(answer) if _words(part)]
    if len(parts) > 1 and all(_stands(part, evidence) for part in parts):
        return True
    return all(_stands(value, evidence) for value in _values(answer))


def stands_in(phrase: str, text: str) -> bool:
    """Whether `text` holds `phrase`, word for word, but for case and punctuation."""
    return bool(_words(phrase)) and _stands(phrase, [f" {' '.join(_words(text))} "])


def evidence_of(calls: Iterable[TraceCall]) -> list[str]:
    """Collect what was found and computed, unescaped, one text a value."""
    texts: list[str] = []
    for call in calls:
        if call.outcome is Outcome.FOUND and call.reply is not None:
            texts += parse_values(call.reply)
        elif call.outcome is Outcome.COMPUTED and call.reply is not None:
            texts.append(unescape(call.reply))
    return texts


def _values(answer: str) -> list[str]:
    values = _QUOTED.findall(answer)
    for sentence in _SENTENCE_END.split(answer):
        values += _names_and_numbers(list(_WORD.finditer(sentence)), sentence)
    return values or [word for word in _words(answer) if word not in _SMALL]


def _names_and_numbers(words: Sequence[re.Match[str]], sentence: str) -> list[str]:
    """Find the runs of numbers and capitalised words. A capital that only opens a longer sentence makes no name."""
    runs: list[list[re.Match[str]]] = []
    for word in words:
        if not (word[0][0].isdigit() or (word[0][0].isupper() and word[0].casefold() not in _SMALL)):
            continue
        joined = runs and sentence[runs[-1][-1].end() : word.start()] in (" ", "-")
        if joined:
            runs[-1].append(word)
        else:
            runs.append([word])
    opening = runs and len(words) > 1 and runs[0] == [words[0]] and not words[0][0][0].isdigit()
    return [sentence[run[0].start() : run[-1].end()] for run in (runs[1:] if opening else runs)]


def _stands(text: str, evidence: Sequence[str]) -> bool:
    needle = " ".join(_words(text))
    return any(f" {needle} " in straw for straw in evidence)


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("’", "'"))
