"""Gradient reversal into probes, never beyond chance.

Legend: M probed places, K classes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainer.losses import Loss


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def reverse(x: Tensor, strength: float) -> Tensor:
    """Give `x` back; on the way backward, turn the gradient around and scale it by `strength` (λ).

    Source: Ganin and Lempitsky, Unsupervised Domain Adaptation by Backpropagation, https://arxiv.org/abs/1409.7495.
    """
    reversed_x: Tensor = _Reverse.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_x


def probe_loss(logits_MK: Tensor, classes_M: Tensor, mask_M: Tensor) -> Loss:
    """Cross-entropy of a probe, in nats: what the probe itself is trained on."""
    nats_M = functional.cross_entropy(logits_MK.float(), classes_M, reduction="none")
    return Loss((nats_M * mask_M).sum(), mask_M.sum())


def capped_probe_loss(logits_MK: Tensor, classes_M: Tensor, mask_M: Tensor, chance_K: Tensor) -> Loss:
    """Cross-entropy of a probe, place by place no more than chance: what is reversed into the model.

    `chance_K` is -log of each class's share, the loss of a probe that knows only the shares. A place whose loss has
    come that far has no gradient: reversal makes a class undecodable and then stops, instead of driving the probe to
    be confidently wrong, which tells as much about the class and costs the model its logic.
    """
    nats_M = functional.cross_entropy(logits_MK.float(), classes_M, reduction="none")
    capped_M = torch.minimum(nats_M, chance_K[classes_M])
    return Loss((capped_M * mask_M).sum(), mask_M.sum())


def warm_up(step: int, steps: int) -> float:
    """Share of λ at a step: 2 / (1 + exp(-10 p)) - 1, p the share of `steps` that has passed, 1 from then on.

    Source: Ganin and Lempitsky (see `reverse`), section 4.1.
    """
    passed = min(step / steps, 1.0)
    return float(2 / (1 + torch.tensor(-10.0 * passed).exp()) - 1) if passed < 1 else 1.0
