"""Divergences from a frozen reference: never-knew at the answer, and the anchors on text that is to be kept.

Legend: N places, V vocabulary, H hidden size.
"""

import torch
from torch import Tensor

from trainer.losses import Loss


def kl_divergence(logits_NV: Tensor, reference_NV: Tensor, mask_N: Tensor) -> Loss:
    """KL(reference || model) in nats, from the logits of both; gradients reach only the model's.

    As *never-knew*, the reference is the frozen base at the same prompt with a subject that it cannot know; as an
    *anchor*, it is the frozen base at the same place. Where the reference gives no probability, nothing is added.
    """
    log_model_NV = logits_NV.float().log_softmax(-1)
    log_reference_NV = reference_NV.float().log_softmax(-1).detach()
    nats_N = (log_reference_NV.exp() * (log_reference_NV - log_model_NV)).sum(-1)
    return Loss((nats_N * mask_N).sum(), mask_N.sum())


def hidden_distance(hidden_NH: Tensor, reference_NH: Tensor, mask_N: Tensor) -> Loss:
    """Squared distance of hidden states, relative to the reference's own squared length, so that layers compare."""
    difference_N = (hidden_NH.float() - reference_NH.float().detach()).square().sum(-1)
    scale_N = reference_NH.float().detach().square().sum(-1).clamp(min=torch.finfo(torch.float32).tiny)
    return Loss((difference_N / scale_N * mask_N).sum(), mask_N.sum())
