"""The relations' names: each normal form has a small number, and the numbers never change.

Not here: what is declared of a relation (``declaration.py``).
"""

import threading

from sqlalchemy import Connection, bindparam, func, select

from knowledge_store.database import Database
from knowledge_store.key import hash64, normalise
from knowledge_store.schema import relation

_SPELLING_LIMIT = 65_536


class Vocabulary:
    """Finds the number of a relation by its name as written; remembers what it found."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_spelling: dict[str, int] = {}
        self._by_key: dict[str, int] = {}
        self._lock = threading.Lock()
        self._find = database.compile(
            select(relation.c.id, relation.c.key).where(relation.c.key64 == bindparam("key64")), "key64"
        )

    def find(self, name: str) -> int | None:
        """Give the number of `name`, or None where no fact ever had this relation."""
        number = self._by_spelling.get(name)
        if number is None:
            key = normalise(name)
            number = self._by_key.get(key)
            if number is None:
                rows = self._database.reader().execute(self._find, (hash64(key),)).fetchall()
                number = next((row[0] for row in rows if row[1] == key), None)
            if number is not None:
                self.learn({key: number}, name)
        return number

    def learn(self, numbers: dict[str, int], spelling: str | None = None) -> None:
        """Remember committed `numbers` by normal form."""
        with self._lock:
            self._by_key.update(numbers)
            if spelling is not None:
                if (
                    len(self._by_spelling) >= _SPELLING_LIMIT
                ):  # whoever asks for the most things must not own the memory
                    self._by_spelling.clear()
                self._by_spelling[spelling] = numbers[normalise(spelling)]

    def forget(self) -> None:
        """Forget everything: the database is another one."""
        with self._lock:
            self._by_key.clear()
            self._by_spelling.clear()


class PendingVocabulary:
    """Numbers for new names within one write transaction; `settle` them after the commit."""

    def __init__(self, vocabulary: Vocabulary, connection: Connection) -> None:
        self._vocabulary = vocabulary
        self._connection = connection
        self._new: dict[str, int] = {}
        self._known: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Give the number of `name`, a new one if need be."""
        number = self._known.get(name)
        if number is None:
            key = normalise(name)
            number = self._new.get(key) or self._vocabulary.find(name) or self._take(key)
            self._known[name] = number
        return number

    def _take(self, key: str) -> int:
        # Another process may have taken it since this one looked: the lock is held now, so look again.
        taken = self._connection.scalar(
            select(relation.c.id).where(relation.c.key64 == hash64(key), relation.c.key == key)
        )
        if taken is None:
            taken = (self._connection.scalar(select(func.max(relation.c.id))) or 0) + 1
            self._connection.execute(relation.insert().values(id=taken, key=key, key64=hash64(key)))
        self._new[key] = taken
        return taken

    def settle(self) -> None:
        """Make the numbers known; only after the transaction was committed."""
        self._vocabulary.learn(self._new)
