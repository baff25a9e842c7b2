"""Negative preference optimization: gradient ascent that fades once an answer has become unlikely.

Source: Zhang et al., Negative Preference Optimization, arXiv 2404.05868: the mean over answers of
(2 / β) log(1 + (p(answer) / p_reference(answer))^β).
Legend: N places, V vocabulary, S answers.
"""

import torch
from torch import Tensor
from torch.nn import functional

from trainer.losses import Loss


def npo(logits_NV: Tensor, reference_NV: Tensor, labels_N: Tensor, answer_N: Tensor, beta: float) -> Loss:
    """The loss summed over answers; `answer_N` numbers the answer, from 0, that each place belongs to."""
    gap_N = _log_p(logits_NV, labels_N) - _log_p(reference_NV, labels_N).detach()
    count = int(answer_N.max()) + 1
    gap_S = torch.zeros(count, device=gap_N.device).index_add(0, answer_N, gap_N)
    return Loss((2 / beta * functional.softplus(beta * gap_S)).sum(), torch.tensor(float(count)))


def _log_p(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    return -functional.cross_entropy(logits_NV.float(), labels_N, reduction="none")
