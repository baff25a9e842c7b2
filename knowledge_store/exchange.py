"""Facts in and out of files: NDJSON, CSV and Parquet, record by record, in constant memory.

A reader gives changes and problems in the order of the file; the store decides that one problem refuses all.
Not here: the commit (``store.py``), progress bars (``command.py``).
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from knowledge_store.change import FactChange, Problem
from knowledge_store.errors import InvalidFact
from knowledge_store.fact import Fact

_LINE_LIMIT = 64 * 2**20
_CSV_FIELD_LIMIT = 16 * 2**20
_ALIAS_SEPARATOR = "|"
COLUMNS = ("subject", "relation", "value", "source", "aliases", "valid_from", "valid_to")


class FileFormat(StrEnum):
    """What a file of facts may be."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"

    @classmethod
    def of(cls, path: Path) -> "FileFormat":
        """Tell the format by the file's name.

        Raises:
            InvalidFact: the name's ending is none that is known.
        """
        endings = {".ndjson": cls.NDJSON, ".jsonl": cls.NDJSON, ".csv": cls.CSV, ".parquet": cls.PARQUET}
        try:
            return endings[path.suffix.lower()]
        except KeyError:
            raise InvalidFact(f"{path.name}: name the format, or let the file end in {', '.join(endings)}") from None


class FactRecord(BaseModel):
    """A fact as outside data."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    subject: str = Field(description="What the fact is about, as written.")
    relation: str = Field(description="Which property of it.")
    value: str = Field(default="", description="The value, as text. May be left out to delete all values.")
    source: str | None = Field(default=None, description="Where the fact is from.")
    aliases: list[str] = Field(default_factory=list, description="Other names of the subject.")
    valid_from: str | None = Field(default=None, description="ISO 8601 date from which the fact holds in the world.")
    valid_to: str | None = Field(default=None, description="ISO 8601 date from which it holds no more.")
    op: Literal["upsert", "delete"] = Field(default="upsert", description="What to do with the fact.")

    def change(self, module: str, line: int | None = None) -> FactChange:
        """Give the change that the record asks of `module`."""
        fact = Fact(
            self.subject,
            self.relation,
            self.value,
            module,
            self.source,
            tuple(self.aliases),
            self.valid_from,
            self.valid_to,
        )
        return FactChange(fact, self.op == "delete", line)


def read_changes(
    stream: IO[bytes], form: FileFormat, module: str, *, progress: Callable[[int], None] = lambda _: None
) -> Iterator[FactChange | Problem]:
    """Read `stream` to its end; `progress` is told, now and then, how many bytes were read since."""
    match form:
        case FileFormat.NDJSON:
            return _read_ndjson(stream, module, progress)
        case FileFormat.CSV:
            return _read_csv(stream, module, progress)
        case FileFormat.PARQUET:
            return _read_parquet(stream, module, progress)


def _read_ndjson(stream: IO[bytes], module: str, progress: Callable[[int], None]) -> Iterator[FactChange | Problem]:
    parse = FactRecord.model_validate_json
    number = 0
    while line := stream.readline(_LINE_LIMIT):
        number += 1
        progress(len(line))
        if len(line) == _LINE_LIMIT:
            yield Problem(number, f"the line is longer than {_LINE_LIMIT:,} bytes; is the file NDJSON?")
            return
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.isspace():
            continue
        try:
            record = parse(line)
        except ValidationError as error:
            yield Problem(number, describe(error))
        else:
            yield record.change(module, number)


def describe(error: ValidationError) -> str:
    """Say in one line what is wrong with a record."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _read_csv(stream: IO[bytes], module: str, progress: Callable[[int], None]) -> Iterator[FactChange | Problem]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    lines = csv.reader(_decoded(stream, progress), strict=True)
    try:
        header = [name.strip().lower() for name in next(lines, [])]
        problem = _header_problem(header)
        if problem:
            yield Problem(1, problem)
            return
        while (row := next(lines, None)) is not None:
            if row:
                yield _csv_change(header, row, module, lines.line_num)
    except (csv.Error, UnicodeDecodeError) as error:
        yield Problem(lines.line_num + 1, f"the file cannot be read as CSV in UTF-8 from here on: {error}")


def _decoded(stream: IO[bytes], progress: Callable[[int], None]) -> Iterator[str]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        for line in text:
            progress(len(line))
            yield line
    finally:
        text.detach()


def _header_problem(header: list[str]) -> str | None:
    unknown = set(header) - {*COLUMNS, "op"}
    lacking = {"subject", "relation", "value"} - set(header)
    if lacking:
        return f"the first line must name the columns; it lacks {', '.join(sorted(lacking))}"
    if unknown or len(set(header)) < len(header):
        return f"the columns may be {', '.join(COLUMNS)} and op, each once; not {', '.join(sorted(unknown)) or header}"
    return None


def _csv_change(header: list[str], row: list[str], module: str, line: int) -> FactChange | Problem:
    if len(row) != len(header):
        return Problem(line, f"{len(row)} fields where the first line names {len(header)}")
    filled: dict[str, Any] = {name: field for name, field in zip(header, row, strict=True) if field}
    if "aliases" in filled:
        filled["aliases"] = [name for name in filled["aliases"].split(_ALIAS_SEPARATOR) if name.strip()]
    return _change(filled, module, line)


def _change(values: dict[str, Any], module: str, line: int) -> FactChange | Problem:
    try:
        return FactRecord.model_validate(values).change(module, line)
    except ValidationError as error:
        return Problem(line, describe(error))


def _read_parquet(stream: IO[bytes], module: str, progress: Callable[[int], None]) -> Iterator[FactChange | Problem]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(stream)
        problem = _header_problem(table.schema_arrow.names)
        if problem:
            yield Problem(1, problem)
            return
        line, before = 0, 0
        for batch in table.iter_batches(8_192):
            for values in batch.to_pylist():
                line += 1
                yield _change({name: it for name, it in values.items() if it is not None}, module, line)
            progress(stream.tell() - before)
            before = stream.tell()
    except (pa.ArrowException, OSError) as error:
        yield Problem(1, f"the file cannot be read as Parquet: {error}")


def record_of(fact: Fact) -> dict[str, Any]:
    """Give what stands in a file for `fact`: what is empty is left out, the module is the file's."""
    values = {name: getattr(fact, name) for name in COLUMNS}
    return {name: list(it) if name == "aliases" else it for name, it in values.items() if it not in (None, ())}


def write_facts(stream: IO[bytes], form: FileFormat, facts: Iterable[Fact]) -> int:
    """Write `facts` as they come; give their number."""
    match form:
        case FileFormat.NDJSON:
            return _write_ndjson(stream, facts)
        case FileFormat.CSV:
            return _write_csv(stream, facts)
        case FileFormat.PARQUET:
            return _write_parquet(stream, facts)


def _write_ndjson(stream: IO[bytes], facts: Iterable[Fact]) -> int:
    count = 0
    for fact in facts:
        stream.write(json.dumps(record_of(fact), ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


def _write_csv(stream: IO[bytes], facts: Iterable[Fact]) -> int:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    count = 0
    try:
        for fact in facts:
            if any(_ALIAS_SEPARATOR in name for name in fact.aliases):
                raise InvalidFact(f"an alias of {fact.subject[:80]!r} holds «|», which CSV cannot carry; use NDJSON")
            writer.writerow({**record_of(fact), "aliases": _ALIAS_SEPARATOR.join(fact.aliases)})
            count += 1
    finally:
        text.detach()
    return count


def _write_parquet(stream: IO[bytes], facts: Iterable[Fact]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = [(name, pa.list_(pa.string()) if name == "aliases" else pa.string()) for name in COLUMNS]
    schema = pa.schema(types)
    count = 0
    with pq.ParquetWriter(stream, schema) as writer:
        batch: list[dict[str, Any]] = []
        for fact in facts:
            count += 1
            batch.append(record_of(fact))
            if len(batch) == 8_192:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch.clear()
        writer.write_table(pa.Table.from_pylist(batch, schema))
    return count
