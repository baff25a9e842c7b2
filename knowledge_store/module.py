"""Modules as a generation shows them: which layer each one reads, whether it is mounted, and before which others.

Not here: the facts (``publish.py``, ``view.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from knowledge_store.change import Policy
from knowledge_store.database import Database
from knowledge_store.errors import ModuleNotMounted, UnknownModule
from knowledge_store.schema import OPEN, event, module, state


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """What a person asks of a module. `generation` is the one that changed its facts last; lower precedence wins."""

    name: str
    facts: int
    etag: str
    mounted: bool
    precedence: int
    generation: int
    policy: Policy

    def document(self) -> dict[str, Any]:
        """Give the module as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class State:
    """A module in a generation."""

    module_id: int
    name: str
    layer_id: int
    mounted: bool
    precedence: int
    policy: Policy
    facts: int
    changed_in: int

    @property
    def etag(self) -> str:
        """Moves whenever the module's facts do."""
        return f'"{self.module_id}.{self.changed_in}"'

    @property
    def info(self) -> ModuleInfo:
        """The same for people."""
        return ModuleInfo(self.name, self.facts, self.etag, self.mounted, self.precedence, self.changed_in, self.policy)


_STATES = (
    select(
        state.c.module_id,
        module.c.name,
        state.c.layer_id,
        state.c.mounted,
        state.c.precedence,
        state.c.policy,
        state.c.facts,
        state.c.changed_in,
    )
    .join(module, module.c.id == state.c.module_id)
    .where(state.c.from_gen <= bindparam("number"), state.c.to_gen > bindparam("number_again"))
    .order_by(state.c.precedence, module.c.name)
)
_NEW_STATE = insert(state)
_NEW_EVENT = insert(event)
_OPEN_STATE = (state.c.module_id == bindparam("of")) & (state.c.to_gen == OPEN)
_DROP_STATE = state.delete().where(_OPEN_STATE, state.c.from_gen == bindparam("number"))
_END_STATE = update(state).where(_OPEN_STATE).values(to_gen=bindparam("number"))


class Catalog:
    """Reads the states of a generation."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = database.compile(_STATES, "number", "number_again")

    def at(self, number: int) -> tuple[State, ...]:
        """Give the modules of generation `number` in order of precedence."""
        rows = self._database.reader().execute(self._sql, (number, number)).fetchall()
        return tuple(_state(row) for row in rows)


def states_within(connection: Connection, number: int) -> dict[str, State]:
    """Give the modules of generation `number` by name, as the transaction sees them."""
    rows = connection.execute(_STATES, {"number": number, "number_again": number})
    return {row.name: _state(row) for row in rows}


def _state(row: Any) -> State:
    module_id, name, layer_id, mounted, precedence, policy, facts, changed_in = row
    return State(module_id, name, layer_id, bool(mounted), precedence, Policy(policy), facts, changed_in)


def new_state(connection: Connection, name: str, layer_id: int, generation: int) -> State:
    """Give the first state of a module: mounted, after all others. Nothing is written but its name."""
    module_id = connection.scalar(select(module.c.id).where(module.c.name == name))
    if module_id is None:
        module_id = (connection.scalar(select(func.max(module.c.id))) or 0) + 1
        connection.execute(insert(module).values(id=module_id, name=name))
    last = connection.scalar(select(func.max(state.c.precedence)).where(state.c.to_gen == OPEN))
    return State(module_id, name, layer_id, True, (last or 0) + 1, Policy.NEWEST, 0, generation)


def write_state(connection: Connection, generation: int, it: State) -> None:
    """Let the module be `it` from `generation` on."""
    end_state(connection, generation, it.module_id)
    connection.execute(
        _NEW_STATE,
        {
            "module_id": it.module_id,
            "from_gen": generation,
            "to_gen": OPEN,
            "layer_id": it.layer_id,
            "mounted": it.mounted,
            "precedence": it.precedence,
            "policy": it.policy.value,
            "facts": it.facts,
            "changed_in": it.changed_in,
        },
    )


def end_state(connection: Connection, generation: int, module_id: int) -> None:
    """Let the module have no state from `generation` on; one that began in it is taken back."""
    connection.execute(_DROP_STATE, {"of": module_id, "number": generation})
    connection.execute(_END_STATE, {"of": module_id, "number": generation})


def known_state(states: Mapping[str, State], name: str, number: int) -> State:
    """Give the module's state.

    Raises:
        UnknownModule: there is none.
    """
    if name not in states:
        raise UnknownModule(f"generation {number} has no module {name[:100]!r}; it has: {', '.join(states) or 'none'}")
    return states[name]


def choose_states(states: Sequence[State], names: Sequence[str], number: int) -> list[State]:
    """Give the states of the modules that a reader asks for, in the reader's order of precedence.

    Raises:
        UnknownModule: there is no such module, or it is not mounted.
    """
    by_name = {state.name: state for state in states}
    chosen = [known_state(by_name, name, number) for name in dict.fromkeys(names)]
    for it in chosen:
        if not it.mounted:
            raise ModuleNotMounted(f"module {it.name!r} is not mounted in generation {number}; mount it first")
    return chosen


def write_event(
    connection: Connection,
    generation: int,
    module_id: int,
    operation: str,
    *,
    detail: str = "",
    counts: tuple[int, int, int] = (0, 0, 0),
) -> None:
    """Note in the history what `generation` did to a module; `counts` are added, changed, deleted."""
    added, changed, deleted = counts
    connection.execute(
        _NEW_EVENT,
        {
            "generation": generation,
            "ordinal": module_id,
            "module_id": module_id,
            "operation": operation,
            "detail": detail,
            "added": added,
            "changed": changed,
            "deleted": deleted,
        },
    )
