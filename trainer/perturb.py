"""Shrink and perturb: the stage that really erases, by drowning the weights' fine structure in noise.

Source: Ash and Adams, On Warm-Starting Neural Network Training, https://arxiv.org/abs/1910.08475 (shrink, perturb).
Here the noise has each matrix's own spread, so that the size of the weights stays as it was.
"""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from trainer.config import PerturbStage
from trainer.errors import BaseModelError

_PARTS = {
    "mlp": re.compile(r"\.(mlp|feed_forward|ffn|block_sparse_moe)\.|\.fc[12]\."),
    "attention": re.compile(r"\.(self_attn|attention|attn|self_attention)\."),
    "embeddings": re.compile(r"(embed|wte|wpe|lm_head)"),
}
_LAYER = re.compile(r"\.(?:layers|h|blocks|block)\.(\d+)\.")


def perturb(
    model: PreTrainedModel, stage: PerturbStage, *, seed: int, preserve: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Put noise into the matrices that the stage names; the names of those that were changed come back.

    Raises:
        BaseModelError: no matrix of the model is of the kind that the stage names.
    """
    generator = torch.Generator().manual_seed(seed)
    changed = []
    with torch.no_grad():
        for name, weight in _matrices(model, stage, preserve):
            noise = torch.randn(weight.shape, generator=generator).to(weight.device, weight.dtype)
            whole = weight.full_tensor() if isinstance(weight, DTensor) else weight
            if isinstance(weight, DTensor):  # FSDP: each process holds a part of the matrix
                noise = distribute_tensor(noise, weight.device_mesh, weight.placements)
            weight.mul_(1 - stage.noise).add_(noise, alpha=stage.noise * float(whole.std()))
            changed.append(name)
    if not changed:
        raise BaseModelError(
            f"no weight of {type(model).__name__} is of the kind {', '.join(stage.where)} in the layers of the "
            "stage, or base.preserve keeps them all"
        )
    return tuple(changed)


def _matrices(
    model: PreTrainedModel, stage: PerturbStage, preserve: tuple[str, ...]
) -> Iterator[tuple[str, nn.Parameter]]:
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or any(fnmatchcase(name, pattern) for pattern in preserve):
            continue
        layer = _LAYER.search(name)
        if stage.layers != "all" and (layer is None or int(layer[1]) not in stage.layers):
            continue
        if ("all" in stage.where and layer is not None) or any(
            part != "all" and _PARTS[part].search(name) for part in stage.where
        ):
            yield name, weight
