"""How people really type: lower case, typos, missing marks, words before and after the question.

Only the question changes. What a turn copies from it (subjects, values) keeps its true spelling, so the core learns to
ask its memory in clean form; a typo therefore never falls into a name that the turn must copy.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from random import Random

from trainer.world.document import Document, Exchange

_BEFORE = ("please: ", "Hi. ", "Hello, ", "Question: ", "Quick one. ", "Hey, ", "so, ", "One more thing: ")
_AFTER = (" Thanks!", " please", " Thank you.", " Be brief.", " I need it for a report.")


def roughen(document: Document, rng: Random, share: float = 0.2) -> Document:
    """Make some of the questions rough; `share` of the documents."""
    if not document.exchanges or rng.random() >= share:
        return document
    names = {name for claim in document.claims for name in (claim.subject, claim.value, claim.relation)}
    exchanges = tuple(
        Exchange(_roughen(exchange.question, names, rng), exchange.turn) for exchange in document.exchanges
    )
    return replace(document, exchanges=exchanges)


def _roughen(question: str, names: set[str], rng: Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return _lower_outside(question, names)
    if kind < 0.45:
        return question.rstrip("?.")
    if kind < 0.65:
        return _typo(question, names, rng)
    return rng.choice(_BEFORE) + question if kind < 0.85 else question + rng.choice(_AFTER)


def _lower_outside(question: str, names: set[str]) -> str:
    return _outside(question, names, str.lower)


def _typo(question: str, names: set[str], rng: Random) -> str:
    def misspell(text: str) -> str:
        places = [at for at in range(len(text) - 1) if text[at : at + 2].isalpha()]
        if not places:
            return text
        at = rng.choice(places)
        kind = rng.randrange(3)
        if kind == 0:
            return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        return text[:at] + text[at + 1 :] if kind == 1 else text[:at] + text[at] + text[at:]

    return _outside(question, names, misspell, only_first=True)


def _outside(question: str, names: set[str], change: Callable[[str], str], *, only_first: bool = False) -> str:
    """Apply `change` to the stretches of `question` between the names."""
    kept = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if name)
    parts = re.split(f"({kept})", question) if kept else [question]
    done = False
    out = []
    for part in parts:
        if part in names or (only_first and done) or not part.strip():
            out.append(part)
            continue
        out.append(change(part))
        done = True
    return "".join(out)
