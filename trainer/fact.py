"""The facts that a run takes out: rows of the same NDJSON that the memory mounts as modules.

Not the memory's `Fact`, which lives in a generation: a target is just what a prompt asks for. Read once, at the start
of a run, by `config`-driven code and by the world.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import FactsError

_WORST = 5  # how many offending rows a message names
_LEAST_A_CLASS, _MOST_CLASSES = 6, 40


@dataclass(frozen=True, slots=True)
class Target:
    """One fact to take out of the weights."""

    subject: str
    relation: str
    value: str
    module: str

    @property
    def key(self) -> tuple[str, str]:
        """What a question names."""
        return self.subject, self.relation


@dataclass(frozen=True, slots=True)
class Source:
    """A file that went into a run, and its digest."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Targets:
    """All facts of a run, in the order of their files."""

    facts: tuple[Target, ...]
    sources: tuple[Source, ...] = ()


class _Row(BaseModel):
    """A line of a module's NDJSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    subject: str = Field(min_length=1)
    relation: str = Field(min_length=1)
    value: str = Field(min_length=1)
    source: str | None = None
    aliases: tuple[str, ...] = ()
    valid_from: str | None = None
    valid_to: str | None = None
    op: Literal["upsert", "delete"] = "upsert"


def read_targets(paths: Sequence[Path], *, contradictions: Literal["refuse", "first"] = "refuse") -> Targets:
    """Read modules; each file's stem names its module.

    Rows that end before now (`valid_to`) and deletions are no targets. A million rows take some seconds.

    Raises:
        FactsError: a file is missing, empty or malformed, or two rows give one (subject, relation) two values and
            `contradictions` is "refuse".
    """
    facts: list[Target] = []
    sources: list[Source] = []
    for path in paths:
        rows, source = _read_file(path)
        facts += rows
        sources.append(source)
    if not facts:
        raise FactsError("there is no fact to take out: name at least one file with a fact under facts.files")
    return Targets(tuple(_agree(facts, contradictions)), tuple(sources))


def _read_file(path: Path) -> tuple[list[Target], Source]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FactsError(f"cannot read facts from {path}: {error.strerror}; check facts.files") from error
    rows: list[Target] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = _Row.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the line"
            raise FactsError(
                f"{path.name}, line {number}: {place}: {first['msg']}; a fact is a JSON object with subject, relation "
                "and value"
            ) from error
        if row.op == "upsert" and row.valid_to is None:
            rows.append(Target(row.subject, row.relation, row.value, path.stem))
    return rows, Source(path.name, hashlib.sha256(content).hexdigest(), len(rows))


def _agree(facts: Iterable[Target], contradictions: Literal["refuse", "first"]) -> Iterable[Target]:
    seen: dict[tuple[str, str], Target] = {}
    clashes: list[str] = []
    for fact in facts:
        first = seen.setdefault(fact.key, fact)
        if first.value != fact.value:
            clashes.append(f"{fact.relation} of {fact.subject}: {first.value!r} and {fact.value!r}")
    if clashes and contradictions == "refuse":
        shown = "; ".join(clashes[:_WORST]) + ("; …" if len(clashes) > _WORST else "")
        raise FactsError(
            f"{len(clashes)} facts contradict an earlier one ({shown}); correct the files, or set "
            "facts.contradictions to first to keep the first value of each"
        )
    return seen.values()


def write_targets(facts: Iterable[Target], folder: Path) -> tuple[Path, ...]:
    """Write facts as modules, one NDJSON a module, in the form that `read_targets` and the memory read."""
    folder.mkdir(parents=True, exist_ok=True)
    modules: dict[str, list[str]] = {}
    for fact in facts:
        row = {"subject": fact.subject, "relation": fact.relation, "value": fact.value}
        modules.setdefault(fact.module, []).append(json.dumps(row, ensure_ascii=False))
    paths = []
    for module, lines in modules.items():
        path = folder / f"{module}.ndjson"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths.append(path)
    return tuple(paths)


def relations_in_classes(facts: Iterable[Target]) -> Iterator[tuple[str, list[Target]]]:
    """The relations that a probe can read, the largest first, each with the facts whose values enough subjects share.

    A probe must see each class often: six subjects a value at least, forty values at most, half of the facts or more.
    """
    relations: dict[str, list[Target]] = {}
    for fact in facts:
        relations.setdefault(fact.relation, []).append(fact)
    for relation, rows in sorted(relations.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        counts = Counter(fact.value for fact in rows)
        usable = [fact for fact in rows if counts[fact.value] >= _LEAST_A_CLASS]
        if len(usable) >= len(rows) / 2 and 2 <= len({fact.value for fact in usable}) <= _MOST_CLASSES:
            yield relation, usable
