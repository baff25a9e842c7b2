"""Keeps an index abreast of the store: loads it, adds what came since, rebuilds it when it is absent, stale or damaged.

What came since the index was built is searched exactly, beside it. Rebuilding goes on in a thread of its own; until it
is done, the search covers what has vectors already. Not here: the index itself (``index.py``).
"""

import logging
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, func, select

from knowledge_store.database import Database
from knowledge_store.embed import Embedder, Vectors
from knowledge_store.errors import KnowledgeError, StoreDamaged
from knowledge_store.fact import Fact
from knowledge_store.index import Manifest, SubjectIndex, build, load, read_manifest, save
from knowledge_store.schema import fact
from knowledge_store.view import SUBJECTS_AT_ONCE, View

_log = logging.getLogger(__name__)

INLINE = 1_024
"""So many new rows are embedded by whoever searches; more are left to the thread."""
_CHUNK = 8_192
_REBUILD_SHARE = 0.2
_REBUILD_FROM = 8_192
"""The index is rebuilt when more rows than this, and a larger share than that, are searched beside it."""
_RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """How far the index is. `covered` and `newest` are numbers of rows; `fault` says why it is being rebuilt."""

    count: int
    exact: bool
    recall: float
    covered: int
    newest: int
    building: bool
    fault: str | None

    @property
    def current(self) -> bool:
        """Whether a search covers every fact."""
        return self.covered >= self.newest


@dataclass(frozen=True, slots=True)
class _Segments:
    """What is searched: replaced as a whole, never changed."""

    main: SubjectIndex | None = None
    base: int = 0  # the rows up to this number are in main
    rest: SubjectIndex | None = None
    covered: int = 0  # and those up to this one in rest
    generation: int = -1

    def lags(self, newest: int) -> bool:
        """Whether so much is searched beside the main index that it should be rebuilt."""
        return newest - self.base > max(_REBUILD_FROM, _REBUILD_SHARE * self.base)


class Indexer:
    """Finds the facts near a vector."""

    def __init__(self, database: Database, embedder: Embedder, folder: Path, store: str) -> None:
        self._database = database
        self._embedder = embedder
        self._folder = folder
        self._store = store
        self._segments = _Segments()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._fault: str | None = None
        self._opened = False
        self._retry_at = 0.0
        rows = select(fact.c.id, fact.c.subject64, fact.c.subject)
        rows = rows.where(fact.c.id > bindparam("after")).order_by(fact.c.id)
        self._next = f"{database.compile(rows, 'after')} LIMIT {_CHUNK}"
        self._newest = database.compile(select(func.max(fact.c.id)))
        subjects = select(fact.c.id, fact.c.subject64).where(fact.c.id > bindparam("after"))
        self._next_subjects = f"{database.compile(subjects.order_by(fact.c.id), 'after')} LIMIT {8 * _CHUNK}"
        self._witness = database.compile(select(fact.c.digest).where(fact.c.id == bindparam("id")), "id")

    # --- Searching. ---

    def near(self, view: View, vector: NDArray[np.float32], count: int) -> tuple[tuple[Fact, ...], ...]:
        """Give the facts of up to `count` subjects that `view` shows, the nearest first."""
        segments = self._abreast(view.number)
        groups: tuple[tuple[Fact, ...], ...] = ()
        for wide in (4 * count, 64 * count):  # many subjects of other generations and modules may lie nearer
            found = [it.search(vector, wide) for it in (segments.main, segments.rest) if it is not None]
            ranked = sorted(
                ((score, int(subject)) for part in found for score, subject in zip(*part, strict=True)), reverse=True
            )
            near = list(dict.fromkeys(subject64 for _, subject64 in ranked))
            groups = ()
            for start in range(0, len(near), SUBJECTS_AT_ONCE):
                groups += view.of_keys(near[start : start + SUBJECTS_AT_ONCE])
                if len(groups) >= count:
                    return groups[:count]
        return groups

    def _abreast(self, generation: int) -> _Segments:
        segments = self._segments
        if segments.generation >= generation:
            return segments
        with self._lock:
            if self._building():
                return self._segments
            newest = self._newest_row()
            if not self._opened or self._segments.lags(newest):
                if time.monotonic() >= self._retry_at:
                    self._start()
            elif newest - self._segments.covered <= INLINE:
                self._segments = self._extended(self._segments, generation)
            else:
                self._start()
            return self._segments

    def _building(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def status(self) -> IndexStatus:
        """Say how far the index is."""
        segments = self._segments
        parts = [it for it in (segments.main, segments.rest) if it is not None]
        return IndexStatus(
            count=sum(len(it.subjects) for it in parts),
            exact=all(it.exact for it in parts),
            recall=min((it.recall for it in parts), default=1.0),
            covered=segments.covered,
            newest=self._newest_row(),
            building=self._building(),
            fault=self._fault,
        )

    # --- Building. ---

    def wait(self, timeout_s: float | None = None) -> IndexStatus:
        """Wait until the index covers every fact, and say how far it is."""
        with self._lock:
            if not self._building() and not (self._opened and self._segments.covered >= self._newest_row()):
                self._start()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return self.status()

    @property
    def folder(self) -> Path:
        """Where the index's files are."""
        return self._folder

    @property
    def main(self) -> SubjectIndex | None:
        """The index without what came since, if there is one yet."""
        return self._segments.main

    def lacking(self) -> int:
        """Count the subjects of rows that the index covers and does not have; none in a whole index."""
        segments = self._segments
        covered, subjects, _ = self._all_subjects()
        return int((~_held(segments, subjects)).sum()) if covered <= segments.covered else 0

    def restart(self, store: str) -> None:
        """Begin anew: the database is another one."""
        with self._lock:
            if self._thread is not None:
                self._closing.set()
                self._thread.join()
                self._closing.clear()
            self._store = store
            self._segments = _Segments()
            self._opened = False

    def close(self) -> None:
        """Let the thread end."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="knowledge-index", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._bring_up()
            self._opened = True
        except KnowledgeError as error:
            if not self._closing.is_set():
                self._fault = str(error)
                self._retry_at = time.monotonic() + _RETRY_S
                _log.warning("the index is not up to date: %s", error)
        finally:
            self._database.release()

    def _bring_up(self) -> None:
        if not self._opened:
            main, covered = self._load()
            self._segments = _Segments(main, covered, None, covered)
        newest = self._newest_row()
        if (self._segments.main is None and newest) or self._segments.lags(newest):
            self.rebuild()
        else:
            self._segments = self._extended(self._segments, 0)

    def rebuild(self) -> Manifest | None:
        """Build the index from the rows, publish its files, and search it from now on."""
        covered, subjects, first_rows = self._all_subjects()
        if covered == 0:
            self._segments = _Segments()
            return None
        index = build(self._embedder.dimension, subjects, lambda places: self._embed_rows(first_rows[places]))
        witness = self._database.reader().execute(self._witness, (covered,)).fetchone()
        try:
            save(
                index,
                self._folder,
                store=self._store,
                embedder=self._embedder.name,
                covered=covered,
                witness=bytes(witness[0]).hex() if witness else "",
            )
        except (OSError, RuntimeError) as error:  # the index serves from memory all the same
            self._fault = f"the index could not be written to {self._folder}: {error}"
            _log.warning("%s", self._fault)
        else:
            self._fault = None
        self._opened = True
        self._segments = self._extended(_Segments(index, covered, None, covered), 0)
        return read_manifest(self._folder)

    def _load(self) -> tuple[SubjectIndex | None, int]:
        manifest = read_manifest(self._folder)
        if manifest is None:
            return None, 0
        if (manifest.store, manifest.embedder) != (self._store, self._embedder.name):
            return None, 0
        row = self._database.reader().execute(self._witness, (manifest.covered,)).fetchone()
        if row is None or bytes(row[0]).hex() != manifest.witness:
            self._fault = "the index is of another state of the store; it is rebuilt"
            return None, 0
        try:
            return load(self._folder, manifest), manifest.covered
        except StoreDamaged as error:
            self._fault = str(error)
            return None, 0

    def _extended(self, segments: _Segments, generation: int) -> _Segments:
        """Add what came since to the part that is searched exactly."""
        rows = self._rows_after(segments.covered)
        if not rows:
            return replace(segments, generation=generation)
        names = {subject64: name for _, subject64, name in rows}
        fresh = np.array(list(names), np.int64)
        fresh = fresh[~_held(segments, fresh)]
        rest = segments.rest
        if len(fresh):
            rest = _joined(rest, fresh, self._embedder.embed([names[it] for it in fresh.tolist()]))
        return replace(segments, rest=rest, covered=rows[-1][0], generation=generation)

    def _rows_after(self, number: int) -> list[Any]:
        found: list[Any] = []
        while rows := self._database.reader().execute(self._next, (number,)).fetchall():
            found += rows
            number = rows[-1][0]
        return found

    def _newest_row(self) -> int:
        return int(self._database.reader().execute(self._newest, ()).fetchone()[0] or 0)

    def _all_subjects(self) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """Give the newest row's number, the distinct subjects in the order of their rows, and the first row of each."""
        number, parts = 0, [np.empty((0, 2), np.int64)]
        while rows := self._database.reader().execute(self._next_subjects, (number,)).fetchall():
            if self._closing.is_set():
                raise StoreDamaged("the store was closed while its index was built")
            parts.append(np.array([tuple(row) for row in rows], np.int64))
            number = rows[-1][0]
        every = np.concatenate(parts)
        _, first = np.unique(every[:, 1], return_index=True)
        first.sort()
        return number, np.ascontiguousarray(every[first, 1]), np.ascontiguousarray(every[first, 0])

    def _embed_rows(self, numbers: NDArray[np.int64]) -> Vectors:
        """Embed the subjects of rows, whose numbers ascend; of rows that are gone since, an empty text."""
        if self._closing.is_set():
            raise StoreDamaged("the store was closed while its index was built")
        texts: dict[int, str] = dict.fromkeys(numbers.tolist(), "")
        with self._database.read() as connection:
            for start in range(0, len(numbers), 500):
                some = numbers[start : start + 500].tolist()
                rows = select(fact.c.id, fact.c.subject).where(fact.c.id.in_(some))
                texts.update({row.id: row.subject for row in connection.execute(rows)})
        return self._embedder.embed(list(texts.values()))


def _held(segments: _Segments, subjects: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say of each subject whether a segment has it."""
    held = np.zeros(len(subjects), bool)
    for it in (segments.main, segments.rest):
        if it is not None:
            held |= np.isin(subjects, it.subjects)
    return held


def _joined(rest: SubjectIndex | None, subjects: NDArray[np.int64], vectors: Vectors) -> SubjectIndex:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    if rest is not None:
        index.add(rest.vectors.reconstruct_n(0, len(rest.subjects)))
        subjects = np.concatenate([rest.subjects, subjects])
    index.add(vectors)
    return SubjectIndex(index, subjects)
