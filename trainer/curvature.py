"""Curvature of linear layers, as K-FAC has it: which directions of a matrix the loss feels, and which lie flat.

Not an edit: `perturb` puts noise into what lies flat, and the rival in `baselines` drops it.

Source: Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature, arXiv 1503.05671.
The Fisher of a linear layer W (O, I) is approximated by G ⊗ A: A is the second moment of its inputs, G that of the
gradients at its outputs, with labels drawn from the model itself. Assumes that inputs and gradients are independent,
and neglects what layers have in common.

Legend: B rows, T tokens, N places, V vocabulary, I inputs, O outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

_Read = TypeVar("_Read")


@dataclass(slots=True)
class Factors:
    """The two second moments of one layer, growing; `weight` is how many places went in."""

    inputs_II: Tensor
    gradients_OO: Tensor
    weight: float = 0.0

    def add(self, inputs_NI: Tensor, gradients_NO: Tensor, weights_N: Tensor | None = None) -> None:
        """Take up places; with weights, each counts by its own. In single precision, which costs half."""
        inputs, gradients = inputs_NI.float(), gradients_NO.float()
        weights = torch.ones(len(inputs)) if weights_N is None else weights_N.float()
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
class Tap:
    """What passed through a layer in one forward and backward."""

    inputs: Tensor | None = None
    gradients: Tensor | None = None

    def on_forward(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A layer's forward hook."""
        del layer
        self.inputs = inputs[0].detach()
        if not output.requires_grad:  # nothing below is trained, and the layer itself is frozen
            output.requires_grad_()
        output.register_hook(self._on_backward)  # type: ignore[no-untyped-call]

    def _on_backward(self, gradients: Tensor) -> None:
        self.gradients = gradients.detach()


@contextmanager
def tapped(layers: Mapping[str, nn.Linear]) -> Iterator[dict[str, Tap]]:
    """Record the inputs and the output gradients of layers while the context is open."""
    taps = {name: Tap() for name in layers}
    handles = [layer.register_forward_hook(taps[name].on_forward) for name, layer in layers.items()]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


def sampled_loss(logits_NV: Tensor, generator: torch.Generator) -> Tensor:
    """Summed cross-entropy against labels drawn from the model itself, as the Fisher asks."""
    probabilities_NV = logits_NV.detach().float().softmax(-1).cpu()
    labels_N = torch.multinomial(probabilities_NV, 1, generator=generator)[:, 0].to(logits_NV.device)
    return nn.functional.cross_entropy(logits_NV.float(), labels_N, reduction="sum")


def estimate_factors(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    read: Callable[[_Read], Tensor],
    batches: Iterable[_Read],
    *,
    seed: int,
    padded: bool = True,
) -> dict[str, Factors]:
    """The factors of a model's layers over batches; `read` gives a batch's logits (N, V) by a forward of the model.

    Where batches are `padded`, places that no loss reaches are left out. The model is left as it was found, without
    gradients.
    """
    factors = {name: new_factors(layer) for name, layer in layers.items()}
    generator, training = torch.Generator().manual_seed(seed), model.training
    model.eval()
    with tapped(layers) as taps:
        for batch in batches:
            sampled_loss(read(batch), generator).backward()  # type: ignore[no-untyped-call]
            for name, tap in taps.items():
                assert tap.inputs is not None, "a forward passed through every layer"
                assert tap.gradients is not None, "a backward passed through every layer"
                inputs_NI, gradients_NO = tap.inputs.flatten(0, -2), tap.gradients.flatten(0, -2)
                if padded:
                    used_N = (gradients_NO != 0).any(1)
                    inputs_NI, gradients_NO = inputs_NI[used_N], gradients_NO[used_N]
                factors[name].add(inputs_NI, gradients_NO)
    model.zero_grad(set_to_none=True)
    model.train(training)
    return factors


@dataclass(frozen=True, slots=True)
class Eigenpairs:
    """The eigenpairs of G ⊗ A; `steep_OI` marks those that carry the mass, with 1, and the flat ones with 0."""

    outputs_OO: Tensor
    inputs_II: Tensor
    steep_OI: Tensor

    def steep(self, matrix_OI: Tensor) -> Tensor:
        """What of a matrix lies along the steep eigenpairs."""
        return self._along(matrix_OI, self.steep_OI)

    def flat(self, matrix_OI: Tensor) -> Tensor:
        """What of a matrix lies along the flat eigenpairs."""
        return self._along(matrix_OI, 1 - self.steep_OI)

    def _along(self, matrix_OI: Tensor, mask_OI: Tensor) -> Tensor:
        parts_OI = self.outputs_OO.T @ matrix_OI.double() @ self.inputs_II
        along_OI: Tensor = (self.outputs_OO @ (parts_OI * mask_OI) @ self.inputs_II.T).to(matrix_OI.dtype)
        return along_OI


def eigenpairs(factors: Factors, mass: float) -> Eigenpairs:
    """The eigenpairs of G ⊗ A; steep are those that carry `mass` of the curvature, the largest first."""
    a_values_I, a_vectors_II = torch.linalg.eigh(factors.input_moment)
    g_values_O, g_vectors_OO = torch.linalg.eigh(factors.gradient_moment)
    mass_OI = g_values_O.clamp(min=0)[:, None] * a_values_I.clamp(min=0)[None]
    return Eigenpairs(g_vectors_OO, a_vectors_II, top_mass(mass_OI, mass))


def top_mass(mass: Tensor, share: float) -> Tensor:
    """A mask over the largest entries that together carry `share` of the sum; a share of 1 keeps every entry."""
    if share >= 1:
        return torch.ones_like(mass)
    ordered, order = mass.flatten().sort(descending=True)
    before = ordered.cumsum(0) - ordered
    mask = torch.zeros_like(ordered)
    mask[order] = (before < share * ordered.sum()).to(ordered.dtype)
    return mask.view_as(mass)
