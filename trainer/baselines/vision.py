"""The curvature edit where its authors showed it second: a small vision transformer that memorized wrong labels.

A transformer is trained on scikit-learn's digits until it knows all its labels by heart, a tenth of them deliberately
wrong. Then its MLP matrices are edited; what counts is how many of the wrongly labelled images get their right label
back, and how many images that it never saw are still named rightly. Published for a large model: 66.5 % came back.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from trainer.baselines.curvature import edit, mlp_layers
from trainer.curvature import Factors, estimate_factors

CLASSES = 10
_SIDE, _PATCH = 8, 2
_BATCH = 128


@dataclass(frozen=True, slots=True)
class Digits:
    """Images [N, patches, pixels] in 0..1; `told` are the labels trained on, `true` the right ones."""

    images: Tensor
    told: Tensor
    true: Tensor
    unseen_images: Tensor
    unseen_true: Tensor

    @property
    def wrong(self) -> Tensor:
        """Which training labels are wrong."""
        return self.told != self.true


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a model names the wrongly labelled images and the others; items are right or wrong."""

    right_again: tuple[bool, ...]
    still_wrong: tuple[bool, ...]
    unseen: tuple[bool, ...]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, states_BTD: Tensor) -> Tensor:
        seen = self.first(states_BTD)
        states_BTD = states_BTD + self.attention(seen, seen, seen, need_weights=False)[0]
        summed: Tensor = states_BTD + self.mlp(self.second(states_BTD))
        return summed


class VisionTransformer(nn.Module):
    """Patches, a class token, blocks, a head."""

    def __init__(self, width: int = 64, depth: int = 3, heads: int = 4, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Linear(_PATCH * _PATCH, width)
        self.place = nn.Parameter(torch.randn(1, (_SIDE // _PATCH) ** 2 + 1, width) * 0.02)
        self.summary = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, images_BTP: Tensor) -> Tensor:
        """Logits [B, classes]."""
        tokens = torch.cat([self.summary.expand(len(images_BTP), -1, -1), self.embed(images_BTP)], 1)
        logits: Tensor = self.head(self.norm(self.blocks(tokens + self.place)[:, 0]))
        return logits


def load(wrong_share: float, seed: int) -> Digits:
    """The digits, three quarters to train; `wrong_share` of their labels moved to another class."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, _SIDE // _PATCH, _PATCH, _SIDE // _PATCH, _PATCH)
    patches = images.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2) / 16
    true = torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(true), generator=generator)
    seen, unseen = order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]
    told = true[seen].clone()
    moved = torch.randperm(len(seen), generator=generator)[: round(wrong_share * len(seen))]
    told[moved] = (told[moved] + torch.randint(1, CLASSES, (len(moved),), generator=generator)) % CLASSES
    return Digits(patches[seen], told, true[seen], patches[unseen], true[unseen])


def train(model: VisionTransformer, digits: Digits, epochs: int, rate: float, seed: int) -> float:
    """Train until the told labels are known by heart, for `epochs` at most; the share that is known comes back."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    known = 0.0
    for _ in range(epochs):
        for places in _batches(torch.randperm(len(digits.told), generator=generator)):
            loss = functional.cross_entropy(model(digits.images[places]), digits.told[places])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        known = float((_named(model, digits.images) == digits.told).float().mean())
        if known == 1.0:
            break
    return known


def edited(model: VisionTransformer, digits: Digits, share: float, seed: int, *, curvature: bool) -> VisionTransformer:
    """A copy whose MLP matrices were edited, by curvature over the training images, or by their own spectrum."""
    changed = copy.deepcopy(model)
    layers = mlp_layers(changed)
    edit(layers, measure(changed, digits, seed) if curvature else None, share)
    return changed


def measure(model: VisionTransformer, digits: Digits, seed: int) -> dict[str, Factors]:
    """The factors of every MLP layer, with labels drawn from the model."""
    batches = _batches(torch.arange(len(digits.images)))
    layers = mlp_layers(model)
    return estimate_factors(model, layers, lambda at: model(digits.images[at]), batches, seed=seed, padded=False)


def recovered(model: VisionTransformer, digits: Digits) -> Recovery:
    """How the model names what it was told wrongly, and what it never saw."""
    named = _named(model, digits.images)[digits.wrong]
    unseen = _named(model, digits.unseen_images) == digits.unseen_true
    return Recovery(
        tuple((named == digits.true[digits.wrong]).tolist()),
        tuple((named == digits.told[digits.wrong]).tolist()),
        tuple(unseen.tolist()),
    )


@torch.no_grad()
def _named(model: VisionTransformer, images: Tensor) -> Tensor:
    named: Tensor = model(images).argmax(-1)
    return named


def _batches(places: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(places), _BATCH):
        yield places[start : start + _BATCH]
