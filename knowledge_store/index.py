"""The index of vectors: one for each (subject, relation) that any fact ever had. A finished thing; never changed.

It holds keys, not values, so a changed value leaves it as it is. What it finds is a proposal: the rows of a generation
decide what holds. Below `EXACT_BELOW` keys every vector is compared; above, FAISS looks into the nearest lists only,
as many as a sample needs for the recall `RECALL`, within a bound; the recall that was measured is written down.
Not here: when one is built (``indexer.py``).
"""

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowledge_store.embed import Vectors
from knowledge_store.errors import StoreDamaged

EXACT_BELOW = 32_768
"""Up to here one thread compares all vectors in about two milliseconds (benchmarks/store_table.py)."""
RECALL = 0.98
"""The share of the five nearest that the approximate search must find."""
_NEAREST = 5
_TRAINED_PER_LIST = 40
_SAMPLE = 64
_SHARE_SEARCHED = 8
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index is of, and how to know that it is whole."""

    store: str
    embedder: str
    dimension: int
    count: int
    covered: int  # all rows up to this number are in it
    witness: str  # the digest of that row
    exact: bool
    probes: int
    recall: float
    vectors: str
    vectors_crc: int
    keys: str
    keys_crc: int


@dataclass(frozen=True, slots=True)
class KeyIndex:
    """An index in memory or mapped from its files. `keys` has a row (subject64, relation_id) for each vector."""

    vectors: Any
    keys: NDArray[np.int64]
    probes: int = 0
    recall: float = 1.0

    @property
    def exact(self) -> bool:
        """Whether every vector is compared."""
        return self.probes == 0

    def search(self, vector: Vectors, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Give the scores and keys of the `count` nearest, the nearest first."""
        scores, places = self.vectors.search(vector[None, :], min(count, len(self.keys)))
        there = places[0] >= 0
        return scores[0][there], self.keys[places[0][there]]


def build(
    dimension: int, keys: NDArray[np.int64], embed: Callable[[NDArray[np.int64]], Vectors], chunk: int = 8_192
) -> KeyIndex:
    """Index `keys`; `embed` gives the vectors of the keys at some places, in the order of the places."""
    import faiss

    count = len(keys)
    chunks = [np.arange(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    if count < EXACT_BELOW:
        flat = faiss.IndexFlatIP(dimension)
        for places in chunks:
            flat.add(embed(places))
        return KeyIndex(flat, keys)
    lists = 2 ** int(np.log2(4 * np.sqrt(count)) - 0.5)
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimension), dimension, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.niter = 6
    index.cp.max_points_per_centroid = _TRAINED_PER_LIST
    chosen = np.sort(np.random.default_rng(0).choice(count, min(count, lists * _TRAINED_PER_LIST), replace=False))
    index.train(embed(chosen))
    for places in chunks:
        index.add(embed(places))
    probes, recall = _tune(index, lists, embed(chosen[:: max(1, len(chosen) // _SAMPLE)][:_SAMPLE]))
    index.nprobe = probes
    return KeyIndex(index, keys, probes, recall)


def _tune(index: Any, lists: int, queries: Vectors) -> tuple[int, float]:
    """Find how many lists must be looked into, on queries that lie a little beside what is stored."""
    noise = np.random.default_rng(1).normal(size=queries.shape).astype(np.float32)
    queries = queries + 0.3 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    index.nprobe = lists
    truth, _ = index.search(queries, _NEAREST)
    probes, recall = 4, 0.0
    # Vectors without clusters would have every list looked into; a bounded search that says its recall is of more use.
    most = max(64, lists // _SHARE_SEARCHED)
    while recall < RECALL and probes < min(most, lists):
        probes *= 2
        index.nprobe = probes
        scores, _ = index.search(queries, _NEAREST)
        # By score: neighbours at the same distance are as good as each other.
        recall = float((scores >= truth[:, -1:] - 1e-4).mean())
    return probes, recall


def save(index: KeyIndex, folder: Path, *, store: str, embedder: str, covered: int, witness: str) -> None:
    """Write `index` into `folder`, for good only when all of it is on the disk; older files are taken away."""
    import faiss

    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{covered}-{os.getpid()}-{os.urandom(4).hex()}"
    vectors, keys = folder / f"{stem}.faiss", folder / f"{stem}.npy"
    faiss.write_index(index.vectors, os.fspath(vectors))
    np.save(keys, index.keys)
    manifest = Manifest(
        store=store,
        embedder=embedder,
        dimension=index.vectors.d,
        count=len(index.keys),
        covered=covered,
        witness=witness,
        exact=index.exact,
        probes=index.probes,
        recall=index.recall,
        vectors=vectors.name,
        vectors_crc=_checksum(vectors),
        keys=keys.name,
        keys_crc=_checksum(keys),
    )
    draft = folder / f"{stem}.json"
    draft.write_text(json.dumps(asdict(manifest)))
    for path in (vectors, keys, draft):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    draft.replace(folder / _MANIFEST)
    for path in folder.iterdir():  # whoever has an old one open keeps it
        if path.name not in (_MANIFEST, vectors.name, keys.name):
            path.unlink(missing_ok=True)


def read_manifest(folder: Path) -> Manifest | None:
    """Give the manifest of the index in `folder`, or None where there is none that can be read."""
    try:
        return Manifest(**json.loads((folder / _MANIFEST).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def load(folder: Path, manifest: Manifest) -> KeyIndex:
    """Map the index of `manifest` into memory.

    Raises:
        StoreDamaged: a file is missing, cut or changed.
    """
    import faiss

    vectors, keys = folder / manifest.vectors, folder / manifest.keys
    try:
        whole = _checksum(vectors) == manifest.vectors_crc and _checksum(keys) == manifest.keys_crc
    except OSError as error:
        raise StoreDamaged(f"a file of the index is gone ({error}); it will be rebuilt") from error
    if not whole:
        raise StoreDamaged("a file of the index is not as it was written; it will be rebuilt")
    flags = 0 if manifest.exact else faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
    index: Any = faiss.read_index(os.fspath(vectors), flags)
    if not manifest.exact:
        index.nprobe = manifest.probes
    return KeyIndex(index, np.load(keys, mmap_mode="r"), manifest.probes, manifest.recall)


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            crc = zlib.crc32(block, crc)
    return crc
