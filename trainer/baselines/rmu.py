"""Representation misdirection: push the hidden states of facts towards one random direction, keep the others in place.

Source: Li et al., The WMDP Benchmark, arXiv 2403.03218. The authors train three layers' MLP matrices; here every weight
up to the steered layer may move, as in all our rivals.
Legend: N places, H hidden size.
"""

import torch
from torch import Tensor

from trainer.losses import Loss


def control_vector(hidden: int, coefficient: float, seed: int) -> Tensor:
    """A random direction with uniform parts, of length `coefficient`."""
    drawn_H = torch.rand(hidden, generator=torch.Generator().manual_seed(seed))
    target_H: Tensor = coefficient * drawn_H / drawn_H.norm()
    return target_H


def misdirection(hidden_NH: Tensor, target_H: Tensor, mask_N: Tensor) -> Loss:
    """Mean squared distance to the target, over the hidden units, summed over the places."""
    distance_N = (hidden_NH.float() - target_H).square().mean(-1)
    return Loss((distance_N * mask_N).sum(), mask_N.sum())


def retention(hidden_NH: Tensor, reference_NH: Tensor, mask_N: Tensor) -> Loss:
    """Mean squared distance to where the frozen base had them."""
    distance_N = (hidden_NH.float() - reference_NH.float().detach()).square().mean(-1)
    return Loss((distance_N * mask_N).sum(), mask_N.sum())
