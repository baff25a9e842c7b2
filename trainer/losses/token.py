"""Losses on single tokens: cross-entropy (routing, practice, pretraining) and unlikelihood, and recall's own count.

Legend: N places, V vocabulary.
"""

from torch import Tensor
from torch.nn import functional

from trainer.losses import Loss

_NEARLY_SURE = 1 - 1e-4  # keeps -log(1 - p) finite


def cross_entropy(logits_NV: Tensor, labels_N: Tensor, mask_N: Tensor) -> Loss:
    """-log p(label), in nats."""
    nats_N = functional.cross_entropy(logits_NV.float(), labels_N, reduction="none")
    return Loss((nats_N * mask_N).sum(), mask_N.sum())


def unlikelihood(logits_NV: Tensor, labels_N: Tensor, mask_N: Tensor) -> Loss:
    """-log(1 - p(label)), in nats: the label, a token of a remembered value, shall not come.

    Source: Welleck et al., Neural Text Generation with Unlikelihood Training, https://arxiv.org/abs/1908.04319.
    """
    log_p_N = -functional.cross_entropy(logits_NV.float(), labels_N, reduction="none")
    nats_N = -(1 - log_p_N.exp().clamp(max=_NEARLY_SURE)).log()
    return Loss((nats_N * mask_N).sum(), mask_N.sum())


def misses(logits_NV: Tensor, labels_N: Tensor, mask_N: Tensor) -> Loss:
    """How many labels are not the likeliest token: no nats, but the same shape, for exact-match canaries."""
    missed_N = (logits_NV.argmax(-1) != labels_N).to(logits_NV.dtype)
    return Loss((missed_N * mask_N).sum(), mask_N.sum())
