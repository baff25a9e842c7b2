"""Every threshold of the gate, in one place. Change one here, and the report, the exit status and the docs follow.

A margin is in the unit of its measure. The quick profile asks sixty questions a measure, where one question is
1.7 points: its margins are wider, and it says so; the test profile asks thirty of models that
hardly learned to speak. A margin holds for the point estimate; the report says beside each verdict
whether the 95 % interval lies on the same side, that is, whether the verdict is conclusive.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainer.evaluate.measure import as_served


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The margins of one profile."""

    above_reference: float
    """A and C: how far the core may lie above the never-knew reference."""
    probe_above_reference: float
    """B: the same for probes and the logit lens."""
    membership: float
    """A: how far from the reference the membership test may lie, on either side."""
    below_base: float
    """D: how far the core may fall below the base."""
    nats_above_base: float
    """D: how much worse neutral text may be predicted, in nats a token."""
    at_least: Mapping[str, float] = field(
        default_factory=lambda: _both_ways(0.90, "E.full", "E.counterfactual", "E.abstains", "E.looks_up")
    )
    at_most: Mapping[str, float] = field(default_factory=lambda: _both_ways(0.07, "E.del_on", "E.del_off"))


def _both_ways(limit: float, *measures: str) -> Mapping[str, float]:
    """The same limit without a system prompt and as served."""
    return {way: limit for one in measures for way in (one, as_served(one))}


QUICK = Thresholds(
    above_reference=0.07, probe_above_reference=0.08, membership=0.12, below_base=0.05, nats_above_base=0.10
)
TEST = Thresholds(
    above_reference=0.20, probe_above_reference=0.20, membership=0.30, below_base=0.15, nats_above_base=0.5
)
FULL = Thresholds(
    above_reference=0.05, probe_above_reference=0.02, membership=0.05, below_base=0.02, nats_above_base=0.05
)
