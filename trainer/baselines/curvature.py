"""The K-FAC edit: keep the directions of the MLP matrices that carry curvature, drop those where memorization lives.

Source: Merullo et al., From Memorization to Reasoning in the Spectrum of Loss Curvature, arXiv 2510.24256, after
Martens and Grosse, arXiv 1503.05671. The Fisher of a linear layer W (O, I) is approximated by G ⊗ A: A is the second
moment of its inputs, G that of the gradients at its outputs, with labels drawn from the model itself. Assumes that
inputs and gradients are independent, and neglects what layers have in common. Plain SVD stands beside it: it keeps the
directions that carry the matrix's own spectral mass, and knows nothing of the loss.

Legend: B rows, T tokens, N places, V vocabulary, I inputs, O outputs.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass(slots=True)
class Factors:
    """The two second moments of one layer, growing; `weight` is how many places went in."""

    inputs_II: Tensor
    gradients_OO: Tensor
    weight: float = 0.0

    def add(self, inputs_NI: Tensor, gradients_NO: Tensor, weights_N: Tensor | None = None) -> None:
        """Take up places; with weights, each counts by its own."""
        inputs, gradients = inputs_NI.double(), gradients_NO.double()
        weights = torch.ones(len(inputs), dtype=torch.double) if weights_N is None else weights_N.double()
        weights = weights.to(inputs.device)
        self.inputs_II += (inputs * weights[:, None]).T @ inputs
        self.gradients_OO += (gradients * weights[:, None]).T @ gradients
        self.weight += float(weights.sum())

    @property
    def input_moment(self) -> Tensor:
        """A."""
        return self.inputs_II / self.weight

    @property
    def gradient_moment(self) -> Tensor:
        """G."""
        return self.gradients_OO / self.weight


def new_factors(layer: nn.Linear) -> Factors:
    """Empty factors of a layer's shape."""
    outputs, inputs = layer.weight.shape
    device = layer.weight.device
    return Factors(
        torch.zeros(inputs, inputs, dtype=torch.double, device=device),
        torch.zeros(outputs, outputs, dtype=torch.double, device=device),
    )


@dataclass(slots=True)
class _Tap:
    """What passed through a layer in one forward and backward."""

    inputs: Tensor | None = None
    gradients: Tensor | None = None
    handles: list[RemovableHandle] = field(default_factory=list)


@contextmanager
def tapped(layers: dict[str, nn.Linear]) -> Iterator[dict[str, _Tap]]:
    """Record the inputs and the output gradients of layers while the context is open."""
    taps = {name: _Tap() for name in layers}

    def listen(tap: _Tap, layer: nn.Linear) -> None:
        def on_forward(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            tap.inputs = inputs[0].detach()

        def on_backward(_: nn.Module, __: Any, gradients: tuple[Tensor, ...]) -> None:
            tap.gradients = gradients[0].detach()

        tap.handles += [layer.register_forward_pre_hook(on_forward), layer.register_full_backward_hook(on_backward)]

    for name, layer in layers.items():
        listen(taps[name], layer)
    try:
        yield taps
    finally:
        for tap in taps.values():
            for handle in tap.handles:
                handle.remove()


def sampled_loss(logits_NV: Tensor, generator: torch.Generator) -> Tensor:
    """Summed cross-entropy against labels drawn from the model itself, as the Fisher asks."""
    probabilities_NV = logits_NV.detach().float().softmax(-1).cpu()
    labels_N = torch.multinomial(probabilities_NV, 1, generator=generator)[:, 0].to(logits_NV.device)
    return nn.functional.cross_entropy(logits_NV.float(), labels_N, reduction="sum")


def keep_by_curvature(weight_OI: Tensor, factors: Factors, share: float) -> Tensor:
    """The weight with only those eigenpairs of G ⊗ A that carry `share` of the curvature mass, the largest first."""
    a_values_I, a_vectors_II = torch.linalg.eigh(factors.input_moment)
    g_values_O, g_vectors_OO = torch.linalg.eigh(factors.gradient_moment)
    mass_OI = g_values_O.clamp(min=0)[:, None] * a_values_I.clamp(min=0)[None]
    parts_OI = g_vectors_OO.T @ weight_OI.double() @ a_vectors_II
    kept_OI = parts_OI * top_mass(mass_OI, share)
    edited: Tensor = (g_vectors_OO @ kept_OI @ a_vectors_II.T).to(weight_OI.dtype)
    return edited


def keep_by_spectrum(weight_OI: Tensor, share: float) -> Tensor:
    """The weight with only those singular directions that carry `share` of its squared norm, the largest first."""
    left_OR, values_R, right_RI = torch.linalg.svd(weight_OI.double(), full_matrices=False)
    kept: Tensor = ((left_OR * (values_R * top_mass(values_R.square(), share))) @ right_RI).to(weight_OI.dtype)
    return kept


def top_mass(mass: Tensor, share: float) -> Tensor:
    """A mask over the largest entries that together carry `share` of the sum; a share of 1 keeps every entry."""
    if share >= 1:
        return torch.ones_like(mass)
    ordered, order = mass.flatten().sort(descending=True)
    before = ordered.cumsum(0) - ordered
    mask = torch.zeros_like(ordered)
    mask[order] = (before < share * ordered.sum()).to(ordered.dtype)
    return mask.view_as(mass)


@torch.no_grad()
def edit(layers: dict[str, nn.Linear], factors: dict[str, Factors] | None, share: float) -> None:
    """Edit layers in place: by curvature where factors are given, else by their own spectrum."""
    for name, layer in layers.items():
        if factors is None:
            layer.weight.copy_(keep_by_spectrum(layer.weight, share))
        else:
            layer.weight.copy_(keep_by_curvature(layer.weight, factors[name], share))


def mlp_layers(model: nn.Module, chosen: Iterable[int] | None = None) -> dict[str, nn.Linear]:
    """The linear layers of the MLPs, by name; of the `chosen` blocks, or of all."""
    blocks = None if chosen is None else set(chosen)
    found = {}
    for name, module in model.named_modules():
        parts = name.split(".")
        if isinstance(module, nn.Linear) and any(part in ("mlp", "feed_forward", "ffn") for part in parts):
            block = next((int(part) for part in parts if part.isdigit()), -1)
            if blocks is None or block in blocks:
                found[name] = module
    return found
