"""Measures the fact store against its targets, beside the raw limit and a peer, in one run.

    python -m benchmarks.store_table [--facts 1000000] [--peer-python PYTHON]

The peer is txtai (FAISS and SQLite): name the Python of an environment that has it; it gets the same vectors.
The last line is JSON.
"""

import argparse
import json
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from knowledge_store.change import Change, FactChange
from knowledge_store.embed import NgramEmbedder
from knowledge_store.fact import Fact
from knowledge_store.outcome import Found
from knowledge_store.protocol import TextQuery, ValueQuery
from knowledge_store.store import Store

RELATIONS = ("ceo", "headquarters", "industry", "founded")
_SYLLABLES = [first + vowel + last for first in "bdfgklmnprstvz" for vowel in "aeiou" for last in ("", "n", "r", "l")]


@dataclass(slots=True)
class Table:
    """Rows of what was measured, with their targets."""

    rows: list[tuple[str, float, str, float | None, bool | None]] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, target: float | None = None, *, least: bool = False) -> None:
        """Add a row; `target` is what the value must not exceed, or must reach with `least`."""
        met = None if target is None else (value >= target if least else value <= target)
        self.rows.append((name, value, unit, target, met))
        bound = "" if target is None else f"{'>=' if least else '<='} {target:,.6g}"
        said = {None: "", True: "met", False: "MISSED"}[met]
        print(f"{name:<52} {value:>12,.3f} {unit:<9} {bound:>14} {said}", flush=True)


def make_facts(count: int, seed: int) -> Iterator[Fact]:
    """Give facts about companies with invented names, four relations each."""
    chance = random.Random(seed)
    for place in range(count):
        if place % 4 == 0:
            words = ["".join(chance.choices(_SYLLABLES, k=chance.randint(2, 3))).title() for _ in range(2)]
            subject = " ".join(words)
        yield Fact(subject, RELATIONS[place % 4], f"value {place}", "big")


def percentiles(seconds: list[float], unit: float) -> tuple[float, float]:
    """Give the median and the 99th percentile in units of `unit` seconds."""
    p50, p99 = np.percentile(seconds, [50, 99]) / unit
    return float(p50), float(p99)


def timed(call: Callable[[], object]) -> float:
    """Give the seconds that a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure_import(store: Store, count: int, table: Table) -> None:
    """Import `count` facts, then build the index."""
    changes = (FactChange(it) for it in make_facts(count, 1))
    plain = timed(lambda: store.commit(Change("big", "merge", changes)))
    table.add("import without vectors", count / plain, "facts/s", 50_000, least=True)
    table.add("  raw sqlite3: the same rows into the same trees", count / raw_import(store), "facts/s")
    vectors = timed(store.indexer.rebuild)
    table.add(
        "import with the default embedder and its index", count / (plain + vectors), "facts/s", 15_000, least=True
    )


def raw_import(store: Store) -> float:
    """Give the seconds that sqlite3 alone takes to insert the store's rows, ready-made, into another such file."""
    source = store.database.sqlite_reader()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw.sqlite"
        Store.open(path).close()
        raw = sqlite3.connect(path, isolation_level=None)
        for pragma in ("cache_size=-65536", "mmap_size=1073741824", "synchronous=FULL", "secure_delete=ON"):
            raw.execute(f"PRAGMA {pragma}")
        seconds = 0.0
        for table in ("fact", "name"):
            rows = source.execute(f"SELECT * FROM {table}")
            blanks = ", ".join("?" * len(rows.description))
            while part := rows.fetchmany(32_768):
                begin = time.perf_counter()
                raw.execute("BEGIN IMMEDIATE")
                raw.executemany(f"INSERT INTO {table} VALUES ({blanks})", part)
                raw.execute("COMMIT")
                seconds += time.perf_counter() - begin
        raw.close()
    return seconds


def measure_lookup(store: Store, path: Path, count: int, table: Table) -> None:
    """Look up random present facts once each, and ask raw SQLite the same."""
    chance = random.Random(2)
    wanted = set(chance.sample(range(count), min(20_000, count)))
    asked = [ValueQuery(it.subject, it.relation) for place, it in enumerate(make_facts(count, 1)) if place in wanted]
    chance.shuffle(asked)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA mmap_size=1073741824")
    sql = "SELECT value FROM fact WHERE subject64 = ? AND relation_id = ?"
    with store.generation() as head:
        for query in asked[:200]:
            head.lookup(query)
        every = max(1, count // len(asked))
        keys = [tuple(row) for row in raw.execute(f"SELECT subject64, relation_id FROM fact WHERE id % {every} = 0")]
        chance.shuffle(keys)
        ours: list[float] = []
        limit: list[float] = []
        for query, key in zip(asked[200:], keys, strict=False):  # in turns, so that both meet the same noise
            limit.append(timed(lambda key=key: raw.execute(sql, key).fetchone()))  # type: ignore[misc]
            ours.append(timed(lambda query=query: head.lookup(query)))  # type: ignore[misc]
        again = [timed(lambda query=query: head.lookup(query)) for query in asked[-5_000:]]  # type: ignore[misc]
        missing = [timed(lambda q=q: head.lookup(ValueQuery(f"{q.subject} x", q.relation))) for q in asked[:2_000]]  # type: ignore[misc]
    raw.close()
    p50, p99 = percentiles(ours, 1e-6)
    raw50, raw99 = percentiles(limit, 1e-6)
    table.add("exact lookup, first time, p50", p50, "µs", 10)
    table.add("exact lookup, first time, p99", p99, "µs", 60)
    table.add("raw sqlite3 point query, p50", raw50, "µs")
    table.add("raw sqlite3 point query, p99", raw99, "µs")
    table.add("exact lookup over raw, p50", p50 / raw50, "times", 1.5)
    table.add("exact lookup again in the same generation, p50", percentiles(again, 1e-6)[0], "µs", 10)
    table.add("lookup of what is missing, p50", percentiles(missing, 1e-6)[0], "µs")


def measure_search(store: Store, count: int, table: Table) -> None:
    """Search the index for free text that nearly holds a name, against comparing all vectors."""
    embedder = NgramEmbedder()
    chance = random.Random(3)
    subjects = list(dict.fromkeys(it.subject for it in make_facts(count, 1)))
    texts = []
    for subject in chance.sample(subjects, min(300, len(subjects))):
        cut = chance.randrange(len(subject))
        texts.append(f"{subject[:cut]}{subject[cut + 1 :]} {chance.choice(RELATIONS)}")
    queries = embedder.embed(texts)
    one = [timed(lambda text=text: embedder.embed([text])) for text in texts]  # type: ignore[misc]
    table.add("embedding of one query, p50", percentiles(one, 1e-3)[0], "ms", 0.2)
    index = store.indexer.main
    assert index is not None, "there is an index after a rebuild"
    faiss.omp_set_num_threads(1)
    seconds = []
    found = []
    for query in queries:
        begin = time.perf_counter()
        scores, _ = index.search(query, 5)
        seconds.append(time.perf_counter() - begin)
        found.append(scores)
    faiss.omp_set_num_threads(2)
    best = exact_scores(subjects, queries, embedder)
    recall = float(np.mean([(mine >= its[-1] - 5e-3).sum() / 5 for mine, its in zip(found, best, strict=True)]))
    table.add("search of the index without embedding, p50", percentiles(seconds, 1e-3)[0], "ms", 1.5)
    table.add("  its recall@5 against comparing all", recall, "", 0.98, least=True)
    table.add("  subjects in the index", len(index.subjects), "")


def without_third(name: str) -> str:
    """Misspell a name: its third letter is left out."""
    return name[:2] + name[3:]


def exact_scores(texts: Sequence[str], queries: Any, embedder: NgramEmbedder) -> Any:
    """Give the five best scores of each query, by comparing the vectors of all texts, a part at a time."""
    best = np.full((len(queries), 5), -1.0, np.float32)
    for start in range(0, len(texts), 16_384):
        scores = queries @ embedder.embed(texts[start : start + 16_384]).T
        best = -np.sort(-np.concatenate([best, scores], axis=1), axis=1)[:, :5]
    return best


def measure_commits(store: Store, count: int, table: Table) -> None:
    """Change one fact until a new request sees it; replace a module of 100,000."""

    def swap(turn: int) -> None:
        store.commit(Change("small", "merge", [FactChange(Fact("Ann", "age", str(turn), "small"))]))
        with store.generation() as head:
            assert head.lookup(ValueQuery("Ann", "age")).text == str(turn)

    swap(0)
    seconds = [timed(lambda turn=turn: swap(turn)) for turn in range(1, 101)]  # type: ignore[misc]
    table.add("commit of one fact until it is seen, p50", percentiles(seconds, 1e-3)[0], "ms", 5)
    size = min(100_000, count)
    for turn in range(2):
        facts = (FactChange(Fact(f"Item {place}", "price", f"{place + turn}", "prices")) for place in range(size))
        staged = store.stage([Change("prices", "replace", facts)])
        begin = time.perf_counter()
        store.publish(staged)
        with store.generation() as head:
            assert head.lookup(ValueQuery("Item 7", "price")).text == str(7 + turn)
        seconds = [time.perf_counter() - begin]
    table.add(f"replace a module of {size:,} facts, once staged", seconds[0] * 1e3, "ms", 50)


def measure_opening(path: Path, table: Table) -> None:
    """Open the store in a new process, until the first lookup is answered."""
    program = (
        "import time, sys; begin = time.perf_counter()\n"
        "from knowledge_store.store import Store; from knowledge_store.protocol import ValueQuery\n"
        "store = Store.open(sys.argv[1]); head = store.generation()\n"
        "assert head.lookup(ValueQuery('Ann', 'age')).text == '100'\n"
        "print(time.perf_counter() - begin); store.close()"
    )
    told = subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True, text=True)
    table.add("open the store until the first lookup", float(told.stdout), "s", 3)


def measure_beside_peer(python: str | None, folder: Path, count: int, table: Table) -> None:
    """Insert, update and search `count` facts, each of a subject of its own, here and in txtai, by the same vectors."""
    if python is None:
        print("(no peer: name the Python of an environment with txtai by --peer-python)")
        return
    facts = [
        Fact(f"{it.subject} {place}", it.relation, it.value, "big") for place, it in enumerate(make_facts(count, 5))
    ]
    texts = folder / "texts.json"
    texts.write_text(json.dumps([it.subject for it in facts]))
    with Store.open(folder / "peer.sqlite") as store:

        def insert() -> None:
            store.commit(Change("big", "merge", map(FactChange, facts)))
            store.index()

        table.add(f"insert of {count:,} with vectors", count / timed(insert), "facts/s")
        updates = []
        for turn in range(20):
            begin = time.perf_counter()
            store.commit(Change("big", "merge", [FactChange(Fact(f"Changed {turn}", "ceo", "new", "big"))]))
            with store.generation() as head:
                found = head.lookup(TextQuery(f"ceo of Changed {turn}"))
                assert found.text == "new"
            updates.append(time.perf_counter() - begin)
        table.add("update until it is on the disk and found, p50", percentiles(updates, 1e-3)[0], "ms")
        seconds, right = [], 0
        asked = facts[:: max(1, count // 200)]
        with store.generation() as head:
            for it in asked:
                begin = time.perf_counter()
                outcome = head.lookup(TextQuery(f"{it.relation} of {without_third(it.subject)}"))
                seconds.append(time.perf_counter() - begin)
                right += isinstance(outcome, Found) and outcome.facts == (it,)
        table.add("search by a misspelled name, p50", percentiles(seconds, 1e-3)[0], "ms")
        table.add("  found", 100 * right / len(asked), "%")
    told = subprocess.run(
        [python, Path(__file__).with_name("store_peer.py"), texts], capture_output=True, text=True, check=False
    )
    if told.returncode:
        print(f"(the peer failed: {told.stderr.strip().splitlines()[-1:]})")
        return
    for name, (value, unit) in json.loads(told.stdout.splitlines()[-1]).items():
        table.add(f"  txtai: {name}", value, unit)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=1_000_000)
    parser.add_argument("--peer-python", default=None)
    parser.add_argument("--peer-facts", type=int, default=100_000)
    arguments = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.sqlite"
        with Store.open(path) as store:
            measure_import(store, arguments.facts, table)
            measure_lookup(store, path, arguments.facts, table)
            measure_commits(store, arguments.facts, table)
            measure_search(store, arguments.facts, table)
        measure_opening(path, table)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        table.add("resident memory, the highest", memory, "GiB", 3)
        measure_beside_peer(arguments.peer_python, Path(folder), arguments.peer_facts, table)
    print(json.dumps({name: {"value": value, "unit": unit, "met": met} for name, value, unit, _, met in table.rows}))


if __name__ == "__main__":
    main()
