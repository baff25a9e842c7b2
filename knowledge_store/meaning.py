"""Likeness of meaning: which of a few names is meant, and which facts a text may be about.

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


class Proposer(Protocol):
    """Whatever can say which facts lie near a vector."""

    def near(self, view: View, vector: NDArray[np.float32], count: int) -> tuple[Fact, ...]:
        """Give up to `count` facts that `view` shows, the nearest first."""
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
        best = float(scores.max())
        if best < self._thresholds.accept:
            return [], best
        close = [name for name, score in zip(names, scores, strict=True) if score > best - self._thresholds.margin]
        return close, best

    def propose(self, view: View, text: str, count: int = 8) -> tuple[Fact, ...]:
        """Give the facts whose subject and relation lie nearest to `text`."""
        return self._proposer.near(view, self._vector(text), count)

    def _vector(self, text: str) -> NDArray[np.float32]:
        vector = self._vectors.get(text)
        if vector is None:
            vector = self._embedder.embed([text])[0]
            self._vectors[text] = vector
            while len(self._vectors) > _REMEMBERED:
                self._vectors.popitem(last=False)
        return vector
