"""What an attack hands back: one number an item, so that two models can be compared item by item.

Finished values, gathered in a `Ledger` while an evaluation runs; `gate.py` judges them and `report.py` writes them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

Item = float | bool


class Role(StrEnum):
    """Who was examined."""

    CORE = "core"
    BASE = "base"
    CONTROL = "control"
    STAND_IN = "stand_in"
    """The core itself, asked about subjects that do not exist: what mere guessing gives."""
    CHANCE = "chance"
    """No model: what the labels or the names alone give."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The outcomes of one measure for one role, in the order of the items.

    A share has items of 0 or 1 and gets a Wilson interval; anything else is a mean and gets a bootstrap interval.
    Two roles are paired where both carry the same number of items.
    """

    measure: str
    role: Role
    items: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    note: str = ""
    groups: tuple[int, ...] = ()
    """Which items belong together, such as one subject in several restarts: they are resampled together."""
    bounds: tuple[float, float] | None = None
    """The 95 % interval where it does not follow from the items."""
    beyond: bool = False
    """Whether the value lies beyond what was tried, so that the figure only bounds it from below."""

    @property
    def mean(self) -> float:
        """The measure's value."""
        return sum(self.items) / len(self.items)


@dataclass(frozen=True, slots=True)
class Curve:
    """A measure over steps, layers or subsets; `low` and `high` bound each point where it has an interval."""

    measure: str
    role: Role
    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    n: int = 0


@dataclass(slots=True)
class Ledger:
    """All outcomes of an evaluation, by measure and role."""

    outcomes: dict[tuple[str, Role], Outcomes] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    not_tested: list[str] = field(default_factory=list)

    def add(
        self,
        measure: str,
        role: Role,
        items: Iterable[Item],
        *,
        seeds: tuple[int, ...] = (0,),
        note: str = "",
        groups: tuple[int, ...] = (),
    ) -> None:
        """Enter a measure; a measure without items is entered as not tested instead."""
        values = tuple(float(item) for item in items)
        if not values:
            self.skip(f"{measure} ({role}): no item fits these facts")
            return
        self.enter(Outcomes(measure, role, values, seeds, note, groups))

    def enter(self, outcomes: Outcomes) -> None:
        """Enter finished outcomes, in place of earlier ones of the same measure and role."""
        self.outcomes[outcomes.measure, outcomes.role] = outcomes

    def skip(self, what: str) -> None:
        """Say that something was not tested, and why."""
        if what not in self.not_tested:
            self.not_tested.append(what)

    def join(self, other: "Ledger") -> None:
        """Enter all that another ledger holds."""
        self.outcomes |= other.outcomes
        self.curves += other.curves
        for what in other.not_tested:
            self.skip(what)

    def find(self, measure: str, *roles: Role) -> Outcomes | None:
        """The outcomes of the first of these roles that has any."""
        return next((self.outcomes[measure, role] for role in roles if (measure, role) in self.outcomes), None)
