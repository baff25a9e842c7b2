"""Facts go out to files and come back the same; a bad file is refused whole, with its bad lines."""

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge_store import staging
from knowledge_store.change import Change, FactChange, Problem
from knowledge_store.errors import InvalidChange, InvalidFact
from knowledge_store.exchange import FileFormat, read_changes, write_facts
from knowledge_store.fact import Fact
from knowledge_store.store import Store

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(str.strip)
dates = st.sampled_from([None, "1990", "1990-05", "1990-05-17"])
facts = st.builds(
    Fact,
    subject=text,
    relation=text,
    value=text,
    module=st.just("m"),
    source=st.none() | text,
    aliases=st.lists(text.filter(lambda it: "|" not in it), max_size=2).map(tuple),
    valid_from=dates,
)


@pytest.mark.parametrize("form", FileFormat)
@settings(max_examples=40, deadline=None)
@given(written=st.lists(facts, max_size=5))
def test_what_is_written_is_read_back(form: FileFormat, written: list[Fact]) -> None:
    stream = io.BytesIO()
    assert write_facts(stream, form, written) == len(written)
    stream.seek(0)
    assert [cast("FactChange", it).fact for it in read_changes(stream, form, "m")] == written


def ndjson(*lines: str) -> IO[bytes]:
    return io.BytesIO("\n".join(lines).encode())


def test_every_bad_line_is_named_and_nothing_is_imported(store: Store) -> None:
    good = '{"subject": "a", "relation": "b", "value": "c"}'
    lines = [good, "", "not json", '{"subject": "a"}', '{"subject": "a", "relation": "b", "value": "c", "colour": 1}']
    lines += ['{"subject": "a", "relation": "b", "value": " "}', '{"subject": "a", "relation": "b", "value": 7}', good]
    with pytest.raises(InvalidChange) as caught:
        store.commit(Change("m", "merge", read_changes(ndjson(*lines), FileFormat.NDJSON, "m")))
    assert [it.line for it in caught.value.problems] == [3, 4, 5, 6, 7]
    assert "colour" in caught.value.problems[2].message
    assert store.head == 0


def test_only_the_first_hundred_problems_are_collected(store: Store) -> None:
    with pytest.raises(InvalidChange) as caught:
        store.commit(Change("m", "merge", read_changes(ndjson(*["bad"] * 500), FileFormat.NDJSON, "m")))
    assert len(caught.value.problems) == 100


def test_a_csv_file_says_what_is_wrong_with_its_header_and_rows() -> None:
    def problems(content: str) -> list[Problem]:
        found = read_changes(io.BytesIO(content.encode()), FileFormat.CSV, "m")
        return [it for it in found if isinstance(it, Problem)]

    assert "lacks relation" in problems("subject,value\na,b\n")[0].message
    assert "colour" in problems("subject,relation,value,colour\na,b,c,d\n")[0].message
    assert problems("subject,relation,value\na,b\n")[0].line == 2
    assert problems("subject,relation,value,op\na,b,c,drop\n")[0].line == 2
    broken = read_changes(io.BytesIO(b"subject,relation,value\na,b,\xff\n"), FileFormat.CSV, "m")
    assert isinstance(list(broken)[-1], Problem)


def test_a_file_that_is_no_parquet_is_a_problem() -> None:
    found = list(read_changes(io.BytesIO(b"not parquet"), FileFormat.PARQUET, "m"))
    assert len(found) == 1
    assert isinstance(found[0], Problem)


def test_deletions_come_by_file_too(store: Store) -> None:
    lines = ['{"subject": "a", "relation": "b", "value": "c"}', '{"subject": "d", "relation": "e", "value": "f"}']
    store.commit(Change("m", "merge", read_changes(ndjson(*lines), FileFormat.NDJSON, "m")))
    deletion = '{"subject": "A", "relation": "B", "op": "delete"}'
    report = store.commit(Change("m", "merge", read_changes(ndjson(deletion), FileFormat.NDJSON, "m")))
    assert (report.deleted, store.modules()[0].facts) == (1, 1)


def test_the_same_file_twice_changes_nothing_whatever_its_length(store: Store) -> None:
    lines = [f'{{"subject": "s{i}", "relation": "r", "value": "{i}"}}' for i in range(9_000)]

    def changes() -> Iterator[FactChange | Problem]:
        return read_changes(ndjson(*lines), FileFormat.NDJSON, "m")

    assert store.commit(Change("m", "merge", changes())).added == 9_000
    for mode in ("merge", "replace"):
        again = store.commit(Change("m", mode, changes()))
        assert (again.generation, again.unchanged, again.anything) == (1, 9_000, False)
    rehearsed = store.commit(
        Change("m", "replace", read_changes(ndjson(*lines[:8_500]), FileFormat.NDJSON, "m")), dry_run=True
    )
    assert (rehearsed.deleted, store.head) == (500, 1)


def test_a_long_import_takes_constant_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_CHUNK", staging.SHORT)  # what is held is a chunk, however large

    def peak(count: int) -> int:
        with Store.open(tmp_path / f"{count}.sqlite") as store:
            tracemalloc.start()
            store.commit(Change("m", "merge", (FactChange(Fact(f"s{i}", "r", "v", "m")) for i in range(count))))
            _, highest = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return highest

    assert peak(36_000) < 1.4 * peak(18_000)


def test_a_file_s_format_is_told_by_its_name() -> None:
    assert FileFormat.of(Path("x.JSONL")) is FileFormat.NDJSON
    with pytest.raises(InvalidFact, match="name the format"):
        FileFormat.of(Path("x.xlsx"))
