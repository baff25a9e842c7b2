"""The losses: pure functions of tensors, each (what, mask) -> (sum, count), used by training and evaluation alike.

A sum and a count, never a mean: a step that is cut into parts, over processes or over time, adds sums and divides by
the whole count, so its result does not depend on the cutting.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """A sum in nats, and how many places it was summed over."""

    sum: Tensor
    count: Tensor

    def mean(self) -> Tensor:
        """Per place; 0 where there is none."""
        return self.sum / self.count.clamp(min=1)
