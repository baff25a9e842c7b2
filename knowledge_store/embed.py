"""Embedders: from text to vectors. The default needs no download, no network and no training.

Not here: where vectors are kept and searched (``index.py``).
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from knowledge_store.key import normalise

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Makes vectors of texts: unit length, so that their inner product is their likeness."""

    @property
    def name(self) -> str:
        """Names the embedder and all that its vectors depend on; a store holds on to it."""
        ...

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Give one row for each text."""
        ...


class NgramEmbedder:
    """Hashed character n-grams of the normal form: texts that are spelled alike lie close together.

    Source: Charikar et al., feature hashing; Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask
    Learning", https://arxiv.org/abs/0902.2206 (signed hashing keeps inner products unbiased).
    """

    name = "ngram-2-3-4/256"
    dimension = 256

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Give one row for each text, all in one pass over their bytes."""
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        if not texts:
            return vectors
        # A space on either side of a word makes its beginning and end part of its grams.
        encoded = [f" {normalise(text)[:512]} ".encode() for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        stream = np.frombuffer(b"".join(encoded), np.uint8).astype(np.uint64)
        owner = np.repeat(np.arange(len(texts)), lengths)
        rolling = stream.copy()
        flat = vectors.reshape(-1)
        for size in (2, 3, 4):
            rolling = rolling[:-1] * np.uint64(257) + stream[size - 1 :]
            inside = owner[: len(rolling)] == owner[size - 1 :]
            mixed = (rolling * np.uint64(0x9E3779B97F4A7C15))[inside] >> np.uint64(32)
            place = owner[: len(rolling)][inside] * self.dimension + (mixed % np.uint64(self.dimension)).astype(
                np.int64
            )
            sign = np.where(mixed & np.uint64(1 << 20), np.float32(1), np.float32(-1))
            flat += np.bincount(place, sign, len(flat)).astype(np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, norms, out=vectors, where=norms > 0)
