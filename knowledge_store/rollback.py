"""Back to an earlier generation of a module, as a new one; and the difference between two generations.

Not here: the module's states (``module.py``).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any

from sqlalchemy import Connection, and_, exists, func, insert, literal, not_, select, update

from knowledge_store.fact import Fact
from knowledge_store.row import row_fact
from knowledge_store.schema import OPEN, alias, fact
from knowledge_store.staging import take_numbers


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact before and after: None before is added, None after is deleted, both is changed."""

    before: Fact | None
    after: Fact | None


@dataclass(frozen=True, slots=True)
class Place:
    """What a module shows in a generation: a layer, read at a number. `layer_id` is None where it does not exist."""

    layer_id: int | None
    number: int


def difference(connection: Connection, module: str, before: Place, after: Place) -> Iterator[Difference]:
    """Give what differs, in the order of the keys, in constant memory."""
    gone = _only_in(connection, before, after)
    come = _only_in(connection, after, before)
    for lost, won in _side_by_side(gone, come):
        for old, new in zip_longest(lost, won):
            yield Difference(old and row_fact(old, module), new and row_fact(new, module))


def _holds(table: Any, place: Place) -> Any:
    return and_(table.c.layer_id == place.layer_id, table.c.from_gen <= place.number, table.c.to_gen > place.number)


def _only_in(connection: Connection, one: Place, other: Place) -> Iterable[Any]:
    here, there = fact.alias("here"), fact.alias("there")
    rows = select(here).where(_holds(here, one))
    if one.layer_id is None:
        return ()
    if other.layer_id is not None:
        twin = select(there.c.id).where(
            there.c.subject64 == here.c.subject64,
            there.c.relation_id == here.c.relation_id,
            there.c.layer_id + 0 == other.layer_id,
            there.c.from_gen <= other.number,
            there.c.to_gen > other.number,
            there.c.digest == here.c.digest,
        )
        rows = rows.where(not_(exists(twin)))
    rows = rows.order_by(here.c.subject64, here.c.relation_id, here.c.id)
    return connection.execute(rows.execution_options(yield_per=1_000))


def _side_by_side(gone: Iterable[Any], come: Iterable[Any]) -> Iterator[tuple[list[Any], list[Any]]]:
    """Merge two streams that are sorted by key."""

    def key(row: Any) -> tuple[int, int]:
        return row.subject64, row.relation_id

    left, right = groupby(gone, key), groupby(come, key)
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[0] < other[0]):
            assert one is not None, "the loop goes on while there is one"
            yield list(one[1]), []
            one = next(left, None)
        elif one is None or other[0] < one[0]:
            yield [], list(other[1])
            other = next(right, None)
        else:
            yield list(one[1]), list(other[1])
            one, other = next(left, None), next(right, None)


def roll_back(connection: Connection, layer_id: int, then: int, number: int) -> bool:
    """Let the layer show from generation `number` on what it showed at `then`; says whether anything had to change."""
    here, twin = fact.alias("here"), fact.alias("twin")
    same = and_(
        twin.c.subject64 == here.c.subject64,
        twin.c.relation_id == here.c.relation_id,
        twin.c.layer_id + 0 == layer_id,
        twin.c.digest == here.c.digest,
    )
    held_then = and_(here.c.layer_id == layer_id, here.c.from_gen <= then, here.c.to_gen > then)
    lost = select(here.c.id).where(
        held_then, here.c.to_gen < OPEN, not_(exists(select(twin.c.id).where(same, twin.c.to_gen == OPEN)))
    )
    came = select(here.c.id).where(
        here.c.layer_id == layer_id,
        here.c.from_gen > then,
        here.c.to_gen == OPEN,
        not_(exists(select(twin.c.id).where(same, twin.c.from_gen <= then, twin.c.to_gen > then))),
    )
    lost_ids = list(connection.scalars(lost.order_by(here.c.id)))
    closed = connection.execute(update(fact).where(fact.c.id.in_(came)).values(to_gen=number)).rowcount
    _copy(connection, lost_ids, number)
    return bool(closed or lost_ids)


def _copy(connection: Connection, ids: list[int], number: int) -> None:
    """Add rows like those of `ids` that hold from generation `number` on."""
    for place in range(0, len(ids), 500):
        some = ids[place : place + 500]
        first = take_numbers(connection, "fact", len(some))
        order = (func.row_number().over(order_by=fact.c.id) + (first - 1)).label("new_id")
        new_ids = select(fact.c.id, order).where(fact.c.id.in_(some)).subquery()
        kept = [it for it in fact.c if it.name not in ("id", "from_gen", "to_gen")]
        rows = select(new_ids.c.new_id, literal(number, fact.c.id.type), literal(OPEN, fact.c.id.type), *kept)
        rows = rows.join(fact, fact.c.id == new_ids.c.id)
        connection.execute(insert(fact).from_select(["id", "from_gen", "to_gen", *(it.name for it in kept)], rows))
        names = select(alias.c.alias64, new_ids.c.new_id, alias.c.subject64).join(
            new_ids, new_ids.c.id == alias.c.fact_id
        )
        connection.execute(insert(alias).from_select(["alias64", "fact_id", "subject64"], names))
