"""What is declared of a relation: whether it has one value, its other names, and the name of its inverse.

Declarations are global and belong to generations like facts. A relation of which nothing is declared is functional.
"""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from knowledge_store.database import Database
from knowledge_store.key import normalise
from knowledge_store.schema import OPEN, declaration


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is declared of a relation. `inverse` names the way back: ``capital`` has the inverse ``capital of``."""

    relation: str
    functional: bool = True
    aliases: tuple[str, ...] = ()
    inverse: str | None = None


_DECLARATIONS = select(
    declaration.c.relation_id,
    declaration.c.name,
    declaration.c.functional,
    declaration.c.aliases,
    declaration.c.inverse,
).where(declaration.c.from_gen <= bindparam("number"), declaration.c.to_gen > bindparam("number_again"))


class Declarations:
    """All declarations of one generation, to be asked by the relation's number or another name of it."""

    def __init__(self, rows: list[Any]) -> None:
        self.by_relation: dict[int, Declaration] = {}
        self.by_alias: dict[str, int] = {}
        self.by_inverse: dict[str, int] = {}
        for relation_id, name, functional, aliases, inverse in rows:
            names = tuple(json.loads(aliases))
            self.by_relation[relation_id] = Declaration(name, bool(functional), names, inverse)
            self.by_alias.update({normalise(alias): relation_id for alias in names})
            if inverse is not None:
                self.by_inverse[normalise(inverse)] = relation_id

    def functional(self, relation_id: int | None) -> bool:
        """Whether a subject has at most one value of the relation at a time."""
        declared = None if relation_id is None else self.by_relation.get(relation_id)
        return declared is None or declared.functional


class DeclarationReader:
    """Reads the declarations of a generation."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = database.compile(_DECLARATIONS, "number", "number_again")

    def at(self, number: int) -> Declarations:
        """Give the declarations of generation `number`."""
        return Declarations(self._database.reader().execute(self._sql, (number, number)).fetchall())


def write_declaration(connection: Connection, generation: int, relation_id: int, it: Declaration) -> None:
    """Let `it` be declared of the relation from `generation` on."""
    open_one = (declaration.c.relation_id == relation_id) & (declaration.c.to_gen == OPEN)
    connection.execute(delete(declaration).where(open_one, declaration.c.from_gen == generation))
    connection.execute(update(declaration).where(open_one).values(to_gen=generation))
    connection.execute(
        insert(declaration).values(
            relation_id=relation_id,
            from_gen=generation,
            to_gen=OPEN,
            name=it.relation,
            functional=it.functional,
            aliases=json.dumps(it.aliases, ensure_ascii=False),
            inverse=it.inverse,
        )
    )
