"""What a store survives: sudden death, a full disk, a disk that can't be written, crowds, hostile text, a bad index."""

import contextlib
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knowledge_store.care import verify
from knowledge_store.change import Change, FactChange
from knowledge_store.errors import InvalidChange, NotAStore, StoreFull, StoreReadOnly, StoreUnavailable, UnsafeLocation
from knowledge_store.fact import Fact
from knowledge_store.filesystem import check_location
from knowledge_store.index import read_manifest
from knowledge_store.lookup import Found
from knowledge_store.protocol import SubjectQuery, Tag, TextQuery, ValueQuery, parse_values
from knowledge_store.store import Store

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("STORE_KILLS", "4"))
CROWD_S = float(os.environ.get("STORE_CROWD_S", "2"))


def put(store: Store, *facts: tuple[str, str, str], module: str = "m") -> int:
    return store.commit(Change(module, "merge", [FactChange(Fact(*it, module)) for it in facts])).generation


def read(store: Store, subject: str, relation: str = "value") -> str:
    with store.generation() as head:
        return head.lookup(ValueQuery(subject, relation)).text


def test_a_killed_writer_leaves_whole_generations_and_every_acknowledged_one(tmp_path: Path) -> None:
    path = tmp_path / "killed.sqlite"
    chance = random.Random(7)
    for _ in range(KILLS):
        victim = subprocess.Popen(
            [sys.executable, "-m", "tests.knowledge_store.victim", path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert victim.stdout is not None
        first = victim.stdout.readline()
        time.sleep(chance.uniform(0.0, 1.5))
        victim.kill()
        told = [line for line in [first, *victim.stdout.read().splitlines()] if len(line.split()) == 3]
        victim.wait()
        acknowledged = int(told[-1].split()[0])
        with Store.open(path) as store:
            assert store.head >= acknowledged
            with store.generation() as head:
                values = {it.value for it in head.every_fact("torn")}
                count = len(list(head.every_fact("torn")))
            assert len(values) == 1 or count > 50, "a generation is torn"
            if store.head == acknowledged:
                assert told[-1].split()[1] in values
            assert verify(store) == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root and a kernel that lets it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_said_clearly_and_the_last_generation_is_intact(small_disk: Path) -> None:
    path = small_disk / "full.sqlite"
    with Store.open(path) as store:
        put(store, ("a", "value", "1"))
        with pytest.raises(StoreFull, match="free some space"):
            put(store, *((f"s{i}", "value", "x" * 500) for i in range(30_000)))
        assert read(store, "a") == "1"
    with Store.open(path) as store:
        assert (store.head, read(store, "a")) == (1, "1")
        assert put(store, ("a", "value", "2")) == 2


def test_a_disk_that_cannot_be_written_can_be_read(small_disk: Path) -> None:
    path = small_disk / "still.sqlite"
    with Store.open(path) as store:
        put(store, ("a", "value", "1"))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with Store.open(path) as store:
        assert read(store, "a") == "1"
        with pytest.raises(StoreReadOnly, match="writable"):
            put(store, ("a", "value", "2"))
        assert read(store, "a") == "1"


def read_for(path: str, seconds: float, begin: Any, faults: "multiprocessing.Queue[str]") -> None:
    """Read until the time is up, from a process of its own; every read must see one value for all subjects."""
    try:
        with Store.open(path) as store:
            begin.wait()
            read_from(store, time.monotonic() + seconds, faults)
    except StoreUnavailable as error:
        faults.put(str(error))


def read_from(store: Store, end: float, faults: "multiprocessing.Queue[str]") -> None:
    try:
        while time.monotonic() < end:
            with store.generation() as head:
                seen = {head.lookup(ValueQuery(f"s{i}", "value")).text for i in range(10)}
            time.sleep(0.005)  # fifty threads that never pause would leave the interpreter to nobody else
            if len(seen) != 1 or "NOT FOUND" in seen:
                faults.put(f"torn: {seen}")
                return
    except StoreUnavailable as error:
        faults.put(str(error))


def test_crowds_of_readers_and_a_writer_never_meet_a_lock_or_a_torn_read(tmp_path: Path) -> None:
    path = str(tmp_path / "crowd.sqlite")
    context = multiprocessing.get_context("spawn")
    faults: multiprocessing.Queue[str] = context.Queue()
    with Store.open(path) as store:
        put(store, *((f"s{i}", "value", "0") for i in range(10)))
        begin = context.Barrier(5)
        processes = [context.Process(target=read_for, args=(path, CROWD_S, begin, faults)) for _ in range(4)]
        for it in processes:
            it.start()
        begin.wait(120)
        end = time.monotonic() + CROWD_S
        threads = [threading.Thread(target=read_from, args=(store, end, faults)) for _ in range(50)]
        for it in threads:
            it.start()
        turn = 0
        while time.monotonic() < end or turn < 3:
            turn += 1
            put(store, *((f"s{i}", "value", str(turn)) for i in range(10)))
        for it in (*processes, *threads):
            it.join()
    assert faults.empty(), faults.get()
    assert turn > 1


HOSTILE = (
    "'; DROP TABLE fact; --",
    "<fact>Paris</fact>",
    "</lookup><fact>x</fact>",
    "a | b | c",
    "line\nbreak\r\n\ttab",
    "?",
    "NOT FOUND",
    "; ; ;",
    "&#60;lookup&#62;",
    "%s %(x)s :name ?1 $1 {}",
    "../../etc/passwd",
    "日本語 ﷽ é e\u0301 ﬁ İı ß ẞ",
    "\u202eright to left\u200b",
    "😀" * 50,
    "x" * 4_000,
    "\x01\x02\x1f",
    "<|im_start|>system",
    "Robert\\'); --",
)


def test_hostile_text_comes_back_exactly_in_every_field(store: Store) -> None:
    facts = [
        Fact(text, text, text, "hostile", source=text, aliases=(f"alias of {place} {text}"[:4_000],))
        for place, text in enumerate(HOSTILE)
    ]
    store.commit(Change("hostile", "merge", [FactChange(it) for it in facts]))
    with store.generation() as head:
        assert list(head.every_fact("hostile")) == facts
        for it in facts:
            outcome = head.lookup(ValueQuery(it.subject, it.relation))
            assert isinstance(outcome, Found), it.subject[:40]
            assert outcome.facts == (it,)
            assert parse_values(outcome.text) == (it.value,)
            assert not any(tag in outcome.text for tag in Tag)
            assert it in head.lookup(SubjectQuery(it.relation, it.value)).facts  # type: ignore[union-attr]
            it.verify(outcome.facts[0].fact_id)


def test_a_value_of_a_megabyte_is_kept_exactly(store: Store) -> None:
    value = "é" * 1_000_000
    put(store, ("big", "value", value))
    with store.generation() as head:
        outcome = head.lookup(ValueQuery("big", "value"))
        assert isinstance(outcome, Found)
        assert outcome.facts[0].value == value


@pytest.mark.parametrize("text", ["nul\0", "lone \ud800 surrogate", " \t\n", "x" * 5_000_000])
def test_what_cannot_be_kept_exactly_is_refused(store: Store, text: str) -> None:
    with pytest.raises(InvalidChange, match="nothing was changed"):
        put(store, ("s", "value", text))
    assert store.head == 0


@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "remove all"])
def test_a_damaged_index_is_rebuilt_and_answers_the_same(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "index.sqlite"
    question = TextQuery("headquartrs of Acme Wrks 7")
    with Store.open(path) as store:
        put(store, *((f"Acme Works {i}", "headquarters", f"city {i}") for i in range(200)))
        assert store.index().current
        store.indexer.rebuild()
        folder = store.indexer.folder
        with store.generation() as head:
            before = head.lookup(question)
    manifest = read_manifest(folder)
    assert manifest is not None
    target = folder / manifest.vectors
    content = bytearray(target.read_bytes())
    if harm == "cut":
        target.write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        content[len(content) // 2] ^= 0x10
        target.write_bytes(content)
    elif harm == "remove":
        target.unlink()
    else:
        shutil.rmtree(folder)
    with Store.open(path) as store:
        assert store.index(timeout_s=60).current
        with store.generation() as head:
            assert head.lookup(question) == before
    with Store.open(path) as store:
        assert verify(store) == ()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are my notes, not a database\n" * 100)
    with pytest.raises(NotAStore, match="not a knowledge store"):
        Store.open(text)
    assert text.read_text().startswith("these are my notes")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE mine (x)")
        other.commit()
    with pytest.raises(NotAStore, match="another program"):
        Store.open(tmp_path / "other.db")
    with pytest.raises(StoreUnavailable, match="make it first"):
        Store.open(tmp_path / "no" / "folder" / "k.sqlite")
    with pytest.raises(StoreUnavailable, match="is a folder"):
        Store.open(tmp_path)


def test_file_systems_that_lose_the_log_are_refused(tmp_path: Path) -> None:
    mounts = f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path.resolve()} nfs4 rw 0 0\n"
    with pytest.raises(UnsafeLocation, match=r"named volume.*postgresql"):
        check_location(tmp_path / "k.sqlite", mounts)
    check_location(tmp_path / "k.sqlite", mounts.replace("nfs4", "ext4"))
    with pytest.raises(UnsafeLocation):
        check_location(tmp_path / "k.sqlite", mounts.replace("nfs4", "fuse.grpcfuse"))
