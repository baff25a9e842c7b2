"""Means of weights: the moving average along a stage, put in their place at its end, and the mean of several ends."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from trainer.machine import gathered

_WARM_UP = 10  # as in TensorFlow's ExponentialMovingAverage


class Average:
    """The exponential moving average of the weights that are trained, on their device and cut as they are.

    After n steps the decay is min(decay, (1 + n) / (10 + n)), so that the weights which a stage began with, perturbed
    ones say, are soon out of it. What is gained is what averaging of iterates gains (Polyak and Juditsky, 1992,
    doi:10.1137/0330046): what one step learns at the cost of another evens out.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._kept = {name: weight.detach().clone() for name, weight in self._trained.items()}

    @classmethod
    def of(cls, model: nn.Module, decay: float | None) -> "Average | None":
        """An average of this decay, where there is to be one; `model` is not wrapped for several processes."""
        return None if decay is None else cls(model, decay)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take in the weights after the step of this number, counted from 1."""
        share = 1 - min(self.decay, (1 + step) / (_WARM_UP + step))
        for name, kept in self._kept.items():
            kept.lerp_(self._trained[name], share)

    @torch.no_grad()
    def put(self) -> None:
        """Give the model the average for its weights."""
        for name, kept in self._kept.items():
            self._trained[name].copy_(kept)

    def state(self) -> dict[str, Tensor]:
        """The average by the names of the weights, whole and on the CPU; every process has to ask."""
        return {name: gathered(kept).to("cpu", copy=True) for name, kept in self._kept.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo all that was taken in since `state`."""
        for name, kept in self._kept.items():
            kept.copy_(_cut_as(kept, state[name]))


def mean_weights(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of whole weights, name by name, in double precision; what is no float comes from the last."""
    total: dict[str, Tensor] = {}
    last: Mapping[str, Tensor] = {}
    count = 0
    for last in states:
        count += 1
        for name, weight in last.items():
            total[name] = total[name].add_(weight) if name in total else weight.to(torch.float64, copy=True)
    floats = {name: weight for name, weight in last.items() if weight.is_floating_point()}
    return {**last, **{name: (total[name] / count).to(weight.dtype) for name, weight in floats.items()}}


def _cut_as(like: Tensor, whole: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)
