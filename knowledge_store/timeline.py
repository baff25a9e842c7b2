"""The line of generations: its head, its beginning, who made which, and which of them somebody still reads.

A pin keeps a generation from compaction. Within a process pins are counted; for other processes, a pin of an old
generation is a row with an end, renewed while it is used. What was the head a moment ago is kept for everybody.
"""

import threading
import time
import uuid
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from knowledge_store.database import Database
from knowledge_store.errors import GenerationGone, StoreReadOnly, UnknownGeneration
from knowledge_store.module import State, states_within
from knowledge_store.schema import event, generation, meta, module, pin

GRACE = timedelta(minutes=15)
"""What was the head so lately is never dropped, and for so long a pin in the database lasts."""
_OLDEST = "oldest"
_NEW = insert(generation)
_HEAD = select(func.max(generation.c.number))
_TIME = select(generation.c.at).where(generation.c.number == bindparam("number"))


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """What one generation did to one module; `module` is None for what concerns all."""

    generation: int
    at: str
    author: str
    module: str | None
    operation: str
    detail: str
    added: int
    changed: int
    deleted: int

    def document(self) -> dict[str, Any]:
        """Give the entry as JSON."""
        return asdict(self)


def head_within(connection: Connection) -> tuple[int, dict[str, State]]:
    """Give the head and its modules by name, as the transaction sees them."""
    head = connection.scalar(_HEAD) or 0
    return head, states_within(connection, head)


def begin_generation(connection: Connection, head: int, author: str) -> int:
    """Begin the generation after `head`, and give its number."""
    last = connection.scalar(_TIME, {"number": head})
    now = datetime.now(UTC)
    if last is not None:  # a clock that was set back must not put generations out of order
        now = max(now, datetime.fromisoformat(last) + timedelta(microseconds=1))
    stamp = now.isoformat(timespec="microseconds")
    connection.execute(_NEW, {"number": head + 1, "at": stamp, "author": author})
    return head + 1


def head_at(connection: Connection, at: datetime) -> int:
    """Give the generation that was the head at `at`.

    Raises:
        ValueError: `at` has no time zone.
        UnknownGeneration: the store had none yet.
    """
    if at.tzinfo is None:
        raise ValueError(f"the time {at.isoformat()} has no time zone; write it as in RFC 3339, with one")
    stamp = at.astimezone(UTC).isoformat(timespec="microseconds")
    number = connection.scalar(select(func.max(generation.c.number)).where(generation.c.at <= stamp))
    if number is None:
        raise UnknownGeneration(f"the store had no generation yet at {at.isoformat()}")
    return int(number)


def oldest_kept(connection: Connection) -> int:
    """Give the oldest generation that compactions have left."""
    return int(connection.scalar(select(meta.c.value).where(meta.c.key == _OLDEST)) or 0)


def keep_from(connection: Connection, number: int) -> None:
    """Say that older generations than `number` can be read no more."""
    connection.execute(delete(meta).where(meta.c.key == _OLDEST))
    connection.execute(insert(meta).values(key=_OLDEST, value=str(number)))


def check_kept(connection: Connection, number: int) -> None:
    """Raise `GenerationGone` if `number` was dropped."""
    oldest = oldest_kept(connection)
    if number < oldest:
        raise GenerationGone(f"generation {number} was dropped by a compaction; the oldest kept is {oldest}")


def history(connection: Connection, name: str | None, limit: int, before: int | None) -> tuple[HistoryEntry, ...]:
    """Give the newest entries first, of one module or of all."""
    entries = (
        select(
            generation.c.number,
            generation.c.at,
            generation.c.author,
            module.c.name,
            event.c.operation,
            event.c.detail,
            event.c.added,
            event.c.changed,
            event.c.deleted,
        )
        .join(event, event.c.generation == generation.c.number)
        .outerjoin(module, module.c.id == event.c.module_id)
        .order_by(generation.c.number.desc(), event.c.ordinal)
        .limit(limit)
    )
    if name is not None:
        entries = entries.where(module.c.name == name)
    if before is not None:
        entries = entries.where(generation.c.number < before)
    return tuple(HistoryEntry(*row) for row in connection.execute(entries))


class Pins:
    """Which generations this process reads, and the word of it for others."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: Counter[int] = Counter()
        self._told: dict[int, float] = {}
        self._process = uuid.uuid4().hex
        self._lock = threading.Lock()

    def take(self, number: int) -> None:
        """Count one reader more."""
        with self._lock:
            self._counts[number] += 1

    def drop(self, number: int) -> None:
        """Count one reader less."""
        with self._lock:
            self._counts[number] -= 1
            if not self._counts[number]:
                del self._counts[number]

    def tell(self, number: int) -> None:
        """Let other processes know that `number` is read here, for some time.

        Raises:
            GenerationGone: it is too late for that.
        """
        with self._lock:
            fresh = self._told.get(number, 0.0) > time.monotonic()
        if fresh:
            return
        with self._database.read() as connection:
            check_kept(connection, number)
        until = (datetime.now(UTC) + 2 * GRACE).isoformat(timespec="microseconds")
        try:
            with self._database.write() as connection:
                check_kept(connection, number)
                mine = (pin.c.process == self._process) & (pin.c.generation == number)
                if not connection.execute(update(pin).where(mine).values(until=until)).rowcount:
                    connection.execute(insert(pin).values(process=self._process, generation=number, until=until))
        except StoreReadOnly:
            return  # who cannot write cannot keep anything from who can
        with self._lock:
            self._told[number] = time.monotonic() + GRACE.total_seconds()

    def oldest(self, connection: Connection) -> int | None:
        """Give the oldest generation that anybody reads; words that have ended are taken away."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        connection.execute(delete(pin).where(pin.c.until < now))
        told = connection.scalar(select(func.min(pin.c.generation)).where(pin.c.process != self._process))
        with self._lock:
            self._told.clear()  # what is about to be dropped may be asked for again: then ask the database
            return min((it for it in (told, *self._counts) if it is not None), default=None)
