"""The K-FAC edit: keep the directions of the MLP matrices that carry curvature, drop those where memorization lives.

Source: Merullo et al., From Memorization to Reasoning in the Spectrum of Loss Curvature, arXiv 2510.24256. Plain SVD
stands beside it: it keeps the directions that carry the matrix's own spectral mass, and knows nothing of the loss.

Legend: I inputs, O outputs, R directions.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainer.curvature import Factors, eigenpairs, top_mass
from trainer.errors import ConfigError


def keep_by_curvature(weight_OI: Tensor, factors: Factors, share: float) -> Tensor:
    """The weight with only those eigenpairs of G ⊗ A that carry `share` of the curvature mass, the largest first."""
    return eigenpairs(factors, share).steep(weight_OI)


def keep_by_spectrum(weight_OI: Tensor, share: float) -> Tensor:
    """The weight with only those singular directions that carry `share` of its squared norm, the largest first."""
    left_OR, values_R, right_RI = torch.linalg.svd(weight_OI.double(), full_matrices=False)
    kept: Tensor = ((left_OR * (values_R * top_mass(values_R.square(), share))) @ right_RI).to(weight_OI.dtype)
    return kept


@torch.no_grad()
def edit(layers: dict[str, nn.Linear], factors: dict[str, Factors] | None, share: float) -> None:
    """Edit layers in place: by curvature where factors are given, else by their own spectrum."""
    for name, layer in layers.items():
        if factors is None:
            layer.weight.copy_(keep_by_spectrum(layer.weight, share))
        else:
            layer.weight.copy_(keep_by_curvature(layer.weight, factors[name], share))


def mlp_layers(model: nn.Module, chosen: Iterable[int] | None = None) -> dict[str, nn.Linear]:
    """The linear layers of the MLPs, by name; of the `chosen` blocks, or of all.

    Raises:
        ConfigError: the model has no MLP in a block that was chosen.
    """
    blocks = None if chosen is None else set(chosen)
    found, seen = {}, set()
    for name, module in model.named_modules():
        parts = name.split(".")
        if isinstance(module, nn.Linear) and any(part in ("mlp", "feed_forward", "ffn") for part in parts):
            block = next((int(part) for part in parts if part.isdigit()), -1)
            seen.add(block)
            if blocks is None or block in blocks:
                found[name] = module
    if blocks is not None and not blocks <= seen:
        raise ConfigError(f"no MLP in the layers {sorted(blocks - seen)}: there are layers {sorted(seen)}")
    return found
