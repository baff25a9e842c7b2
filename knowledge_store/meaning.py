"""Likeness of meaning: which of a few names is meant, and which subjects a text may be about.

Not here: what is done with a proposal (``phrase.py``), how vectors are searched (``index.py``).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from knowledge_store.embed import Embedder
from knowledge_store.fact import Fact
from knowledge_store.view import View

_REMEMBERED = 4_096


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which likeness on a relation is meant, and how far behind the next one must be."""

    accept: float
    margin: float


NGRAM = Thresholds(accept=0.75, margin=0.10)
SENTENCE = Thresholds(accept=0.75, margin=0.10)
"""Measured by benchmarks/store_thresholds.py: a step of 0.05 or more above the first that led to no wrong relation."""


def thresholds_of(embedder: Embedder) -> Thresholds:
    """Give the thresholds that hold for an embedder."""
    return NGRAM if embedder.name.startswith("ngram") else SENTENCE


def meant(scores: NDArray[np.float32], limits: Thresholds) -> list[int]:
    """Give the places of the names that may be meant: one, none, or several that are too near to tell apart."""
    best = scores.max()
    return [] if best < limits.accept else np.flatnonzero(scores > best - limits.margin).tolist()


class Proposer(Protocol):
    """Whatever can say which subjects lie near a vector."""

    def near(self, view: View, vector: NDArray[np.float32], count: int) -> tuple[tuple[Fact, ...], ...]:
        """Give the facts of up to `count` subjects that `view` shows, the nearest first."""
        ...


class Meaning:
    """Compares by the store's embedder."""

    def __init__(self, embedder: Embedder, proposer: Proposer) -> None:
        self._embedder = embedder
        self._proposer = proposer
        self._thresholds = thresholds_of(embedder)
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def choose(self, text: str, names: Sequence[str]) -> tuple[list[str], float]:
        """Give which of `names` is meant by `text`, with its likeness: one, none, or several that are too near."""
        if not names or not text.strip():
            return [], 0.0
        scores = np.stack([self._vector(name) for name in names]) @ self._vector(text)
        return [names[place] for place in meant(scores, self._thresholds)], float(scores.max())

    def likest(self, text: str, facts: Sequence[Fact]) -> Fact:
        """Give the one of `facts` whose relation is nearest to `text`."""
        wanted = self._vector(text)
        return max(facts, key=lambda it: float(self._vector(it.relation) @ wanted))

    def propose(self, view: View, text: str, count: int = 5) -> tuple[tuple[Fact, ...], ...]:
        """Give the facts of the subjects whose names lie nearest to `text`."""
        return self._proposer.near(view, self._vector(text), count)

    def _vector(self, text: str) -> NDArray[np.float32]:
        vector = self._vectors.get(text)
        if vector is None:
            vector = self._embedder.embed([text])[0]
            self._vectors[text] = vector
            while len(self._vectors) > _REMEMBERED:
                self._vectors.popitem(last=False)
        return vector
