"""Stops a run whose logic collapses, before it has spent the night on a ruin."""

from dataclasses import dataclass

from trainer.canary import Canaries
from trainer.config import WatchConfig
from trainer.errors import CollapseError


@dataclass
class Watchdog:
    """Counts the looks in a row at which a canary lay on its back. `base` is the look at the untouched base."""

    config: WatchConfig
    base: Canaries
    fallen: int = 0

    def look(self, now: Canaries, *, grace: bool) -> None:
        """Take note of a look; in `grace`, as after a perturbation, low logic is expected.

        Raises:
            CollapseError: the logic canary was down for `patience` looks in a row.
        """
        least = self.config.least_logic * self.base.logic
        self.fallen = 0 if grace or now.logic >= least else self.fallen + 1
        if self.fallen >= self.config.patience:
            raise CollapseError(
                f"the logic canary fell: {now.logic:.0%} of the documents right, the base had {self.base.logic:.0%}, "
                f"the bound is {least:.0%}; lower the weight of reversal or the learning "
                "rate, or raise the anchor's weight"
            )
