"""BalancedSubnet: find the few weights whose removal raises the loss on what is to be forgotten and not on the rest.

Source: Sakarvadia et al., Mitigating Memorization in Language Models, arXiv 2410.02159. A score for each weight of the
MLPs is trained; the top `ratio` of the scores are dropped in the forward pass, with the gradient passed straight
through; the loss is (1 - balance) times that on text to keep minus balance times that on text to forget. The weights
themselves do not move; at the end, the top-scored are zeroed.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainer.losses import Loss

Losses = Callable[[Callable[..., object]], tuple[Loss, Loss]]
"""Given how to call the model, the loss on a batch to forget and on a batch to keep."""
_START = 1e-2


def locate(
    model: nn.Module,
    names: list[str],
    draws: Iterator[Losses],
    ratio: float,
    balance: float,
    steps: int,
    rate: float,
    seed: int,
) -> dict[str, Tensor]:
    """Train the scores; the mask of the weights to drop comes back, 1 where a weight goes."""
    weights = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    scores = {
        name: (torch.randn(weights[name].shape, generator=generator) * _START).to(weights[name].device).requires_grad_()
        for name in names
    }
    optimizer = torch.optim.Adam(list(scores.values()), lr=rate)
    frozen = {name: weight.detach() for name, weight in weights.items()}
    for _ in range(steps):
        masked = {name: frozen[name] * (1 - _straight_through(score, ratio)) for name, score in scores.items()}
        changed = frozen | masked

        def call(*arguments: object, changed: dict[str, Tensor] = changed, **options: object) -> object:
            return functional_call(model, changed, arguments, options)

        forgotten, kept = next(draws)(call)
        loss = (1 - balance) * kept.mean() - balance * forgotten.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: _top(score.detach(), ratio) for name, score in scores.items()}


@torch.no_grad()
def drop(model: nn.Module, masks: dict[str, Tensor]) -> int:
    """Zero the located weights in place; how many there were comes back."""
    weights = dict(model.named_parameters())
    for name, mask in masks.items():
        weights[name].mul_(1 - mask)
    return int(sum(mask.sum() for mask in masks.values()))


def _straight_through(score: Tensor, ratio: float) -> Tensor:
    """1 for the top scores and 0 for the others; the gradient is that of the score itself."""
    return _top(score.detach(), ratio) + score - score.detach()


def _top(score: Tensor, ratio: float) -> Tensor:
    count = round(ratio * score.numel())
    mask = torch.zeros_like(score)
    if count:
        mask.view(-1)[score.flatten().topk(count).indices] = 1
    return mask
