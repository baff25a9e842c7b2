"""The rivals' objective: a loss that forgets on the fact stream, and the KL anchor on the logic stream.

A step is the same as everywhere: the loop asks this objective for its terms, as it asks `Metabolism` for its own.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.baselines.ascent import ascent
from trainer.baselines.npo import npo
from trainer.baselines.rmu import control_vector, misdirection, retention
from trainer.config import Strict
from trainer.losses import Loss
from trainer.losses.divergence import kl_divergence
from trainer.losses.token import unlikelihood
from trainer.objective import Counts, Term
from trainer.reader import Places, Reader
from trainer.streams.batch import Batch

Forget = Literal["ascent", "unlikelihood", "npo", "rmu"]


class RivalLosses(Strict):
    """What a rival minimises."""

    forget: Forget = Field(description="the loss on the fact stream")
    weight: float = Field(default=1.0, gt=0, description="its weight")
    anchor: float = Field(default=1.0, ge=0, description="weight of what holds the logic stream: KL, or RMU's own")
    beta: float = Field(default=0.1, gt=0, description="npo: its inverse temperature")
    coefficient: float = Field(default=20.0, gt=0, description="rmu: length of the random direction")
    layer: int = Field(default=0, ge=0, description="rmu: the steered hidden state; 0 takes the middle one")


class Rival:
    """The terms of one rival; see `trainer.objective.Objective`."""

    streams: tuple[str, ...] = ("fact", "logic")

    def __init__(self, losses: RivalLosses, teacher: Reader, seed: int = 0) -> None:
        self.losses, self.teacher = losses, teacher
        self._layer = losses.layer or max(1, teacher.layers // 2)
        hidden = int(teacher.model.config.hidden_size)
        self._target_H = control_vector(hidden, losses.coefficient, seed)

    def count(self, batches: Mapping[str, Batch]) -> dict[str, float]:
        """See `Objective`."""
        fact = batches["fact"]
        per_answer = self.losses.forget == "npo"
        forgotten = float(fact.first_N.sum()) if per_answer else float(len(fact.rows_N))
        return {"forget": forgotten, "anchor": float(len(batches["logic"].rows_N))}

    def compute(
        self, model: nn.Module, stream: str, places: Mapping[str, Places], counts: Counts, step: int
    ) -> list[Term]:
        """See `Objective`."""
        del counts, step
        at = places[stream]
        if stream == "fact":
            return [Term("forget", self.losses.weight, self._forget(model, at))]
        return [Term("anchor", self.losses.anchor, self._hold(model, at))]

    def _forget(self, model: nn.Module, at: Places) -> Loss:
        ones_N = torch.ones_like(at.labels_N, dtype=torch.float32)
        if self.losses.forget == "rmu":
            _, (hidden_NH,) = model(at, (self._layer,))
            return misdirection(hidden_NH, self._target_H.to(hidden_NH.device), ones_N)
        logits_NV, _ = model(at)
        match self.losses.forget:
            case "ascent":
                return ascent(logits_NV, at.labels_N, ones_N)
            case "unlikelihood":
                return unlikelihood(logits_NV, at.labels_N, ones_N)
            case "npo":
                with torch.no_grad():
                    reference_NV, _ = self.teacher(at)
                return npo(logits_NV, reference_NV, at.labels_N, answers_of(at.first_N), self.losses.beta)

    def _hold(self, model: nn.Module, at: Places) -> Loss:
        ones_N = torch.ones_like(at.labels_N, dtype=torch.float32)
        layers = (self._layer,) if self.losses.forget == "rmu" else ()
        logits_NV, hidden = model(at, layers)
        with torch.no_grad():
            reference_NV, reference = self.teacher(at, layers)
        if layers:
            return retention(hidden[0], reference[0], ones_N)
        return kl_divergence(logits_NV, reference_NV, ones_N)


def answers_of(first_N: Tensor) -> Tensor:
    """Number the answers, from 0: a new one begins where a first token stands."""
    return first_N.long().cumsum(0) - 1
