"""The statements over sets by which a staged layer is compared with a module's layer and merged into it.

Made once: to build one of them takes longer than to run it on a short change. Their order is told in ``publish.py``.
Rows that are to be closed or deleted are found first and named by number then: a statement that looks through the
table which it changes is planned badly by both databases.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, exists, func, not_, or_, select, union_all, update

from knowledge_store.schema import OPEN, declaration, fact, retraction


@dataclass(frozen=True, slots=True)
class SetStatements:
    """Parameters: `staged` and `layer` are layers, `number` a generation, `many` the relations of several values.

    What is `overtaken` is superseded by the staged rows `ids`.
    """

    said_twice: Any
    said: Any
    unsaid: Any
    retracted: Any
    present: Any
    rivals: Any
    superseded: Any
    superseded_twins: Any
    overtaken: Any
    overtaken_twins: Any
    replaced: Any
    move: Any
    close: Any
    delete: Any
    row: Any
    count_staged: Any
    count_open: Any
    count_present: Any
    matched: Any


_MULTIVALUED = select(declaration.c.relation_id).where(declaration.c.to_gen == OPEN, ~declaration.c.functional)


def multivalued(connection: Connection) -> list[int]:
    """Give the relations that may have several values."""
    return list(connection.scalars(_MULTIVALUED))


@cache
def set_statements() -> SetStatements:
    """Give the statements."""
    staged: Any = bindparam("staged")
    layer: Any = bindparam("layer")
    old, new = fact.alias("old"), fact.alias("new")
    many: Any = bindparam("many", expanding=True)
    ids: Any = bindparam("ids", expanding=True)
    same_key = and_(
        new.c.layer_id == staged,
        old.c.subject64 == new.c.subject64,
        old.c.relation_id == new.c.relation_id,
        # The sum keeps SQLite from walking the whole module where it should look up what a short change names.
        old.c.layer_id + 0 == layer,
    )
    pair = and_(same_key, old.c.to_gen == OPEN)
    same = and_(pair, old.c.digest == new.c.digest)
    overlapping = and_(
        pair,
        func.coalesce(old.c.valid_from, "") < func.coalesce(new.c.valid_to, "9999-99"),
        func.coalesce(new.c.valid_from, "") < func.coalesce(old.c.valid_to, "9999-99"),
    )
    rival = and_(overlapping, old.c.value64 != new.c.value64, old.c.relation_id.not_in(many))
    twin = and_(overlapping, old.c.value64 == new.c.value64)
    counterpart = or_(old.c.value64 == new.c.value64, old.c.relation_id.not_in(many))
    superseded = select(old.c.id).select_from(new.join(old, and_(overlapping, counterpart)))
    superseded_twins = select(old.c.id).select_from(new.join(old, twin))
    both = select(func.count(new.c.id.distinct()), func.count(old.c.id.distinct()))
    return SetStatements(
        **_said(staged),
        retracted=_retracted(old, staged, layer).where(not_(exists(select(new.c.id).where(same)))),
        present=select(new.c.id, old.c.id).select_from(new.join(old, same)),
        rivals=select(old.c.id, new.c.id).select_from(new.join(old, rival)).order_by(new.c.ordinal),
        superseded=superseded,
        superseded_twins=superseded_twins,
        overtaken=superseded.where(new.c.id.in_(ids)),
        overtaken_twins=superseded_twins.where(new.c.id.in_(ids)),
        replaced=both.select_from(new.join(old, and_(same_key, old.c.to_gen == bindparam("number"), counterpart))),
        move=update(fact).where(fact.c.layer_id == staged).values(layer_id=layer, from_gen=bindparam("number")),
        close=update(fact).where(fact.c.id.in_(ids)).values(to_gen=bindparam("number")),
        delete=delete(fact).where(fact.c.id.in_(ids)),
        row=select(fact).where(fact.c.id == bindparam("id")),
        count_staged=select(func.count()).select_from(fact).where(fact.c.layer_id == staged),
        count_open=select(func.count()).select_from(fact).where(fact.c.layer_id == layer, fact.c.to_gen == OPEN),
        count_present=select(func.count()).select_from(new.join(old, same)),
        matched=both.select_from(new.join(old, and_(pair, counterpart))),
    )


def _said(staged: Any) -> dict[str, Any]:
    both = union_all(
        select(fact.c.subject64, fact.c.relation_id).where(fact.c.layer_id == staged),
        select(retraction.c.subject64, retraction.c.relation_id).where(retraction.c.layer_id == staged),
    ).subquery()
    key: dict[str, Any] = {name: bindparam(name) for name in ("subject64", "relation_id")}
    statements = {
        name: select(table).where(table.c.layer_id == staged, *(table.c[column] == it for column, it in key.items()))
        for name, table in (("said", fact), ("unsaid", retraction))
    }
    twice = select(both).group_by(both.c.subject64, both.c.relation_id).having(func.count() > 1)
    return {"said_twice": twice, **statements}


def _retracted(old: Any, staged: Any, layer: Any) -> Any:
    covered = and_(
        old.c.subject64 == retraction.c.subject64,
        old.c.relation_id == retraction.c.relation_id,
        or_(retraction.c.value64.is_(None), retraction.c.value64 == old.c.value64),
    )
    rows = select(old.c.id).select_from(retraction.join(old, covered))
    return rows.where(retraction.c.layer_id == staged, old.c.layer_id + 0 == layer, old.c.to_gen == OPEN)
