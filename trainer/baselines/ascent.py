"""Gradient ascent: make the remembered answers unlikely by climbing their loss.

Source: Jang et al., Knowledge Unlearning for Mitigating Privacy Risks in Language Models, arXiv 2210.01504.
Legend: N places, V vocabulary.
"""

from torch import Tensor

from trainer.losses import Loss
from trainer.losses.token import cross_entropy


def ascent(logits_NV: Tensor, labels_N: Tensor, mask_N: Tensor) -> Loss:
    """+log p(label), in nats: unbounded below, which is why it wrecks a model that is not stopped early."""
    climbed = cross_entropy(logits_NV, labels_N, mask_N)
    return Loss(-climbed.sum, climbed.count)
