"""A fact, and the rules it obeys. A value: where it is kept and in which generations it holds is ``store.py``."""

import re
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

from knowledge_store.errors import InvalidFact, StoreDamaged
from knowledge_store.key import normalise

NAME_LIMIT = 4_096
"""Characters in a subject, a relation, an alias or a source."""
VALUE_LIMIT = 4_194_304
"""Characters in a value."""
ALIAS_LIMIT = 256

_DATE = re.compile(r"\d{4}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12]\d|3[01]))?)?")
_MODULE = re.compile(r"\w[\w .-]{0,98}[\w.-]|\w")


@dataclass(frozen=True, slots=True)
class Fact:
    """One row of truth, as seen in a generation. Shown as written; compared by normal form.

    `valid_from` and `valid_to` are the world's time: ISO 8601 dates (a year, a month or a day), from inclusive, to
    exclusive. `aliases` are other names of the subject.
    """

    subject: str
    relation: str
    value: str
    module: str
    source: str | None = None
    aliases: tuple[str, ...] = ()
    valid_from: str | None = None
    valid_to: str | None = None

    @property
    def fact_id(self) -> str:
        """The content's hash: 32 hexadecimal digits, the same on every machine and in every store."""
        return self.digest().hex()

    def digest(self) -> bytes:
        """Give the content's hash as 16 bytes."""
        content = (
            f"{len(self.module)}:{self.module}{len(self.subject)}:{self.subject}"
            f"{len(self.relation)}:{self.relation}{len(self.value)}:{self.value}"
        )
        if self.source is self.valid_from is self.valid_to is None and not self.aliases:
            content += "---"
        else:
            rest = (self.source, self.valid_from, self.valid_to, *self.aliases)
            content += "".join(["-" if field is None else f"{len(field)}:{field}" for field in rest])
        return blake2b(content.encode(), digest_size=16).digest()

    def verify(self, fact_id: str) -> None:
        """Check that this is still the fact which `fact_id` was given to.

        Raises:
            StoreDamaged: a field is not what it was.
        """
        if self.fact_id != fact_id:
            raise StoreDamaged(
                f"the fact «{self.subject[:80]} | {self.relation[:80]}» of module {self.module!r} is not what was "
                "stored: its hash differs; restore a backup, or import the module again with --mode replace"
            )

    def document(self) -> dict[str, Any]:
        """Give the fact as JSON, with its id and module."""
        return {"fact_id": self.fact_id, **asdict(self), "aliases": list(self.aliases)}

    def holds_on(self, day: str) -> bool:
        """Whether the fact holds in the world on `day` (an ISO 8601 date)."""
        return (self.valid_from is None or self.valid_from <= day) and (self.valid_to is None or day < self.valid_to)


def check_module_name(name: str) -> str:
    """Give `name` back if a module can be called so.

    Raises:
        InvalidFact: it is empty, too long, or holds more than letters, digits, spaces and ``_ . -``.
    """
    if not _MODULE.fullmatch(name) or not name.isprintable():
        raise InvalidFact(
            f"no module can be called {name[:100]!r}: use 1 to 100 letters, digits, spaces, «_», «.» and «-», "
            "beginning with a letter, a digit or «_»"
        )
    return name


def check_fact(fact: Fact, *, value_required: bool = True) -> None:
    """Check that `fact` can be stored and found again exactly as written.

    Raises:
        InvalidFact: a name is blank, too long or not text that a database can hold, or a date is none.
    """
    _check_name("subject", fact.subject)
    _check_name("relation", fact.relation)
    if value_required or fact.value:
        _check_name("value", fact.value, VALUE_LIMIT)
    if fact.source is not None:
        _check_name("source", fact.source)
    if len(fact.aliases) > ALIAS_LIMIT:
        raise InvalidFact(f"a fact has {len(fact.aliases)} aliases; {ALIAS_LIMIT} at most")
    for alias in fact.aliases:
        _check_name("alias", alias)
    for date in (fact.valid_from, fact.valid_to):
        if date is not None and not _DATE.fullmatch(date):
            raise InvalidFact(f"not a date: {date[:40]!r}; write YYYY, YYYY-MM or YYYY-MM-DD")
    if fact.valid_from is not None and fact.valid_to is not None and fact.valid_from >= fact.valid_to:
        raise InvalidFact(f"valid_to ({fact.valid_to}) is exclusive and must come after valid_from ({fact.valid_from})")


def check_declaration_name(*names: str) -> None:
    """Check the names that a declaration gives a relation.

    Raises:
        InvalidFact: one is blank, too long or not text that a database can hold.
    """
    for name in names:
        _check_name("relation", name)


def _check_name(field: str, text: str, limit: int = NAME_LIMIT) -> None:
    if len(text) > limit:
        raise InvalidFact(f"the {field} has {len(text):,} characters; {limit:,} at most")
    if "\0" in text:
        raise InvalidFact(f"the {field} holds a NUL character, which no database text may hold; take it out")
    if text.isascii():
        blank = not text or text.isspace()
    else:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidFact(f"the {field} is not Unicode text: a lone surrogate at {error.start}") from error
        blank = not normalise(text)
    if blank:
        raise InvalidFact(f"the {field} is blank")
