"""The index of vectors: one for each subject that any fact ever had. A finished thing; never changed.

It holds names, not facts, so a changed value leaves it as it is. What it finds is a proposal: the rows of a generation
decide what holds. Below `EXACT_BELOW` subjects every vector is compared; above, every vector's 4-bit product code is,
in registers, and the most likely ones again by 8 bits a dimension: as many as a sample needs for the recall `RECALL`,
within a bound; the recall that was measured is written down. Not here: when one is built (``indexer.py``).

Source: André et al. 2017, "Accelerated Nearest Neighbor Search with Quick ADC", https://arxiv.org/abs/1704.07355.
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

EXACT_BELOW = 8_192
"""Up to here one thread compares all vectors in less than half a millisecond."""
RECALL = 0.98
"""The share of the five nearest that the approximate search must find."""
_NEAREST = 5
_DIMENSIONS_A_CODE = 4
_TRAINED = 16_384
_SAMPLE = 64
_LEAST_REFINED, _MOST_REFINED = 100, 1_600
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
    refined: int
    recall: float
    vectors: str
    vectors_crc: int
    subjects: str
    subjects_crc: int


@dataclass(frozen=True, slots=True)
class SubjectIndex:
    """An index in memory or mapped from its files. `subjects` has the subject64 of each vector.

    `refined` is how many proposals of the codes are compared again; 0 where every vector is compared as it is.
    """

    vectors: Any
    subjects: NDArray[np.int64]
    refined: int = 0
    recall: float = 1.0

    @property
    def exact(self) -> bool:
        """Whether every vector is compared as it is."""
        return self.refined == 0

    def search(self, vector: Vectors, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Give the scores and subjects of the `count` nearest, the nearest first."""
        scores, places = _search(self.vectors, vector[None, :], min(count, len(self.subjects)), self.refined)
        there = places[0] >= 0
        return scores[0][there], self.subjects[places[0][there]]


def _search(index: Any, queries: Vectors, count: int, refined: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if not refined:
        return index.search(queries, count)  # type: ignore[no-any-return]
    import faiss

    wide = faiss.IndexRefineSearchParameters()
    wide.k_factor = min(max(refined, 2 * count), index.ntotal) / count
    return index.search(queries, count, params=wide)  # type: ignore[no-any-return]


def build(
    dimension: int, subjects: NDArray[np.int64], embed: Callable[[NDArray[np.int64]], Vectors], chunk: int = 8_192
) -> SubjectIndex:
    """Index `subjects`; `embed` gives the vectors of the subjects at some places, in the order of the places."""
    import faiss

    count = len(subjects)
    chunks = [np.arange(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    if count < EXACT_BELOW:
        flat = faiss.IndexFlatIP(dimension)
        for places in chunks:
            flat.add(embed(places))
        return SubjectIndex(flat, subjects)
    codes = max(it for it in range(1, dimension // _DIMENSIONS_A_CODE + 1) if dimension % it == 0)
    scan = faiss.IndexPQFastScan(dimension, codes, 4, faiss.METRIC_INNER_PRODUCT)
    again = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index = faiss.IndexRefine(scan, again)
    chosen = np.sort(np.random.default_rng(0).choice(count, min(count, _TRAINED), replace=False))
    index.train(embed(chosen))
    for places in chunks:
        index.add(embed(places))
    refined, recall = _tune(index, embed(chosen[:: max(1, len(chosen) // _SAMPLE)][:_SAMPLE]))
    return SubjectIndex(index, subjects, refined, recall)


def _tune(index: Any, queries: Vectors) -> tuple[int, float]:
    """Find how many proposals must be compared again, on queries as far from a name as a question that holds it."""
    noise = np.random.default_rng(1).normal(size=queries.shape).astype(np.float32)
    queries = queries + noise / np.linalg.norm(noise, axis=1, keepdims=True)
    truth, _ = index.refine_index.search(queries, _NEAREST)
    refined, recall = _LEAST_REFINED // 2, 0.0
    while recall < RECALL and refined < _MOST_REFINED:
        refined *= 2
        scores, _ = _search(index, queries, _NEAREST, refined)
        # By score: neighbours at the same distance are as good as each other.
        recall = float((scores >= truth[:, -1:] - 1e-4).mean())
    return refined, recall


def save(index: SubjectIndex, folder: Path, *, store: str, embedder: str, covered: int, witness: str) -> None:
    """Write `index` into `folder`, for good only when all of it is on the disk; older files are taken away."""
    import faiss

    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{covered}-{os.getpid()}-{os.urandom(4).hex()}"
    vectors, subjects = folder / f"{stem}.faiss", folder / f"{stem}.npy"
    faiss.write_index(index.vectors, os.fspath(vectors))
    np.save(subjects, index.subjects)
    manifest = Manifest(
        store=store,
        embedder=embedder,
        dimension=index.vectors.d,
        count=len(index.subjects),
        covered=covered,
        witness=witness,
        exact=index.exact,
        refined=index.refined,
        recall=index.recall,
        vectors=vectors.name,
        vectors_crc=_checksum(vectors),
        subjects=subjects.name,
        subjects_crc=_checksum(subjects),
    )
    draft = folder / f"{stem}.json"
    draft.write_text(json.dumps(asdict(manifest)))
    for path in (vectors, subjects, draft):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    draft.replace(folder / _MANIFEST)
    for path in folder.iterdir():  # whoever has an old one open keeps it
        if path.name not in (_MANIFEST, vectors.name, subjects.name):
            path.unlink(missing_ok=True)


def read_manifest(folder: Path) -> Manifest | None:
    """Give the manifest of the index in `folder`, or None where there is none that can be read."""
    try:
        return Manifest(**json.loads((folder / _MANIFEST).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def load(folder: Path, manifest: Manifest) -> SubjectIndex:
    """Map the index of `manifest` into memory.

    Raises:
        StoreDamaged: a file is missing, cut or changed.
    """
    import faiss

    vectors, subjects = folder / manifest.vectors, folder / manifest.subjects
    try:
        whole = _checksum(vectors) == manifest.vectors_crc and _checksum(subjects) == manifest.subjects_crc
    except OSError as error:
        raise StoreDamaged(f"a file of the index is gone ({error}); it will be rebuilt") from error
    if not whole:
        raise StoreDamaged("a file of the index is not as it was written; it will be rebuilt")
    index: Any = faiss.read_index(os.fspath(vectors), faiss.IO_FLAG_MMAP_IFC)
    return SubjectIndex(index, np.load(subjects, mmap_mode="r"), manifest.refined, manifest.recall)


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            crc = zlib.crc32(block, crc)
    return crc
