"""Shrink and perturb: the stage that really erases, by drowning the weights' fine structure in noise.

Source: Ash and Adams, On Warm-Starting Neural Network Training, https://arxiv.org/abs/1910.08475 (shrink, perturb).
Here the noise has each matrix's own spread, so that the size of the weights stays as it was. It goes into the whole
matrix, or only into the directions that the loss on fact-free text hardly feels, where memorization is said to live:
Merullo et al., From Memorization to Reasoning in the Spectrum of Loss Curvature, arXiv 2510.24256.

A subject that the tokenizer spells with one token keeps its facts in that token's row of the embedding table, where no
noise in a layer reaches them; `where: [names]` is for those rows.

Legend: I inputs, O outputs, V vocabulary.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from trainer.config import FlatConfig, PerturbStage
from trainer.curvature import Eigenpairs, eigenpairs, estimate_factors
from trainer.errors import BaseModelError
from trainer.objective import check_layers
from trainer.reader import Places, Reader, vocabulary_tables

PARTS = {
    "mlp": re.compile(r"\.(mlp|feed_forward|ffn|block_sparse_moe)\.|\.fc[12]\."),
    "attention": re.compile(r"\.(self_attn|attention|attn|self_attention)\."),
    "embeddings": re.compile(r"(embed|wte|wpe|lm_head)"),
}
_COUNTED = 48  # batches of text that tokens are counted in
_LAYER = re.compile(r"\.(?:layers|h|blocks|block)\.(\d+)\.")


def perturb(
    model: PreTrainedModel,
    stage: PerturbStage,
    *,
    seed: int,
    preserve: tuple[str, ...] = (),
    text: Iterable[Places] = (),
    spelled: Mapping[int, str] = MappingProxyType({}),
) -> tuple[str, ...]:
    """Put noise into the matrices that the stage names; the names of those that were changed come back.

    `text` are batches of the logic stream; only a stage with `flat` or `names` reads them. `spelled` are the tokens
    that the targets' subjects are spelled with, and what each reads as, for `names`.

    Raises:
        ConfigError, BaseModelError: as `choose`.
    """
    text = iter(text)
    chosen = choose(model, stage, preserve=preserve, text=text, spelled=spelled)
    matrices, rare = chosen.matrices, chosen.rare
    pairs = _eigenpairs(model, matrices, stage.flat, text, seed) if stage.flat is not None else {}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in matrices.items():
            noise = torch.randn(weight.shape, generator=generator).to(weight.device, weight.dtype)
            if name in pairs:
                weight.add_(flat_change(weight, noise, pairs[name]), alpha=stage.noise)
                continue
            whole = weight.full_tensor() if isinstance(weight, DTensor) else weight
            if isinstance(weight, DTensor):  # FSDP: each process holds a part of the matrix
                noise = distribute_tensor(noise, weight.device_mesh, weight.placements)
            weight.mul_(1 - stage.noise).add_(noise, alpha=stage.noise * float(whole.std()))
        changed = tuple(matrices)
        if rare:
            changed += _perturb_names(model, rare, spelled, stage, preserve, generator)
    return changed


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a stage changes: matrices by name, and the rows of rare tokens with how often the text has them."""

    matrices: Mapping[str, nn.Parameter]
    rare: Mapping[int, int]


def choose(
    model: PreTrainedModel,
    stage: PerturbStage,
    *,
    preserve: tuple[str, ...] = (),
    text: Iterable[Places] = (),
    spelled: Mapping[int, str] = MappingProxyType({}),
) -> Chosen:
    """Find what `perturb` will change, without a change; arguments as there. Without text every token is rare.

    Raises:
        ConfigError: the stage names a layer that is not there.
        BaseModelError: no matrix of the model is of the kind that the stage names, one of them has no curvature, or
            there is but one name to swap.
    """
    if stage.layers != "all":
        count = int(model.config.num_hidden_layers)
        check_layers(stage.layers, range(count), f"the {count} layers of the base")
    matrices = dict(_matrices(model, stage, preserve))
    rare = _rare(model, spelled, islice(text, _COUNTED), stage.common, preserve) if "names" in stage.where else {}
    if not matrices and not rare:
        raise BaseModelError(
            f"no weight of {type(model).__name__} is of the kind {', '.join(stage.where)} in the layers of the "
            "stage, or base.preserve keeps them all"
            + ("; of names, the text has every token too often: raise common" if "names" in stage.where else "")
        )
    if stage.names == "swapped" and len(rare) == 1:
        raise BaseModelError("names can be swapped where there are two at least; set names: new in the stage")
    if stage.flat is not None:
        _linear(model, matrices)
    return Chosen(matrices, rare)


def has_target(model: PreTrainedModel, stage: PerturbStage, preserve: tuple[str, ...] = ()) -> bool:
    """Whether the stage finds anything to perturb that is not preserved; which names are rare is seen only in text."""
    table_VI, _ = vocabulary_tables(model)
    names = "names" in stage.where and not _is_kept(_name_of(model, table_VI), preserve)
    return names or any(True for _ in _matrices(model, stage, preserve))


def patterns_of(model: PreTrainedModel, part: str) -> tuple[str, ...]:
    """Glob patterns for the weights of a part, one of `PARTS`, as this architecture names them."""
    found = (PARTS[part].search(name) for name, _ in model.named_parameters())
    return tuple(sorted({f"*{match[0]}*" for match in found if match}))


def _is_kept(name: str, preserve: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in preserve)


def _name_of(model: PreTrainedModel, table_VI: Tensor) -> str:
    return next(name for name, weight in model.named_parameters() if weight is table_VI)


def _rare(
    model: PreTrainedModel, spelled: Collection[int], text: Iterable[Places], common: float, preserve: tuple[str, ...]
) -> dict[int, int]:
    """The tokens of names and how often they come in fact-free text, without those that it is full of, such as a space.

    None where rows are kept.
    """
    table_VI, _ = vocabulary_tables(model)
    if _is_kept(_name_of(model, table_VI), preserve):
        return {}
    counts = torch.zeros(table_VI.shape[0], dtype=torch.long)
    for at in text:
        counts += torch.bincount(at.ids_BT.flatten().cpu(), minlength=len(counts))
    most = common * max(int(counts.sum()), 1)
    return {token: int(counts[token]) for token in sorted(spelled) if counts[token] <= most}


def _perturb_names(
    model: PreTrainedModel,
    rare: Mapping[int, int],
    spelled: Mapping[int, str],
    stage: PerturbStage,
    preserve: tuple[str, ...],
    generator: torch.Generator,
) -> tuple[str, ...]:
    """Mix the rows of names with new ones, or with each other's; the names of the tables come back.

    A swap goes through the head too, where it has a table of its own: what is read as another name is written as it.
    Rows go to tokens of like frequency and form, so that what the model often copies has a row that it often copied,
    and what begins a name one that began names.
    """
    table_VI, head_VI = vocabulary_tables(model)
    if stage.names == "new":
        _mix_rows(table_VI, list(rare), stage.noise, None, generator)
        return (_name_of(model, table_VI),)
    circles = _circles(rare, spelled, generator)
    tables = [table_VI]
    if head_VI is not table_VI and not _is_kept(_name_of(model, head_VI), preserve):
        tables.append(head_VI)
    to = [row for circle in circles for row in circle]
    taken = [row for circle in circles for row in (*circle[1:], circle[0])]
    for table in tables:
        _mix_rows(table, to, stage.noise, taken, generator)
    return tuple(_name_of(model, table) for table in tables)


def _form(text: str) -> tuple[bool, int]:
    """Whether a space comes first, and what then: a capital, a small letter, or no letter."""
    first = text.strip()[:1]
    return text.startswith(" "), 0 if first.isupper() else 1 if first.isalpha() else 2


def _circles(rare: Mapping[int, int], spelled: Mapping[int, str], generator: torch.Generator) -> list[list[int]]:
    """Rows along circles, so that none takes its own: one circle for each form and 0 times, 1, 2 to 3, 4 to 7, ...

    A row that is alone joins those next to it.
    """
    alike = defaultdict[tuple[tuple[bool, int], int], list[int]](list)
    for row, count in rare.items():
        alike[_form(spelled[row]), count.bit_length()].append(row)
    joined: list[list[int]] = []
    for _, rows in sorted(alike.items()):
        if joined and (len(rows) == 1 or len(joined[-1]) == 1):
            joined[-1] = joined[-1] + rows
        else:
            joined.append(rows)
    return [
        [rows[place] for place in torch.randperm(len(rows), generator=generator).tolist()]
        for rows in joined
        if len(rows) > 1
    ]


def _mix_rows(
    table_VI: Tensor, rows: list[int], noise: float, others: list[int] | None, generator: torch.Generator
) -> None:
    """Mix rows with the `others` of the same table, or with noise of the table's own spread."""
    whole_VI = table_VI.full_tensor() if isinstance(table_VI, DTensor) else table_VI
    mixed_VI = whole_VI.clone()
    if others is None:
        drawn = torch.randn(len(rows), whole_VI.shape[1], generator=generator).to(whole_VI.device, whole_VI.dtype)
        drawn *= whole_VI.std()
    else:
        drawn = whole_VI[others]
    mixed_VI[rows] = (1 - noise) * whole_VI[rows] + noise * drawn
    if isinstance(table_VI, DTensor):
        mixed_VI = distribute_tensor(mixed_VI, table_VI.device_mesh, table_VI.placements)
    table_VI.copy_(mixed_VI)


def flat_change(weight_OI: Tensor, noise_OI: Tensor, pairs: Eigenpairs) -> Tensor:
    """What takes the flat part of a matrix to noise of that part's own size; nothing where no direction is flat."""
    flat_OI, noisy_OI = pairs.flat(weight_OI), pairs.flat(noise_OI)
    size = flat_OI.norm() / noisy_OI.norm().clamp(min=torch.finfo(noisy_OI.dtype).tiny)
    change_OI: Tensor = noisy_OI * size - flat_OI
    return change_OI


def _eigenpairs(
    model: PreTrainedModel, matrices: Mapping[str, nn.Parameter], flat: FlatConfig, text: Iterable[Places], seed: int
) -> dict[str, Eigenpairs]:
    """The eigenpairs of each matrix's curvature on text that holds no fact."""
    reader = Reader(model)
    layers = _linear(model, matrices)
    factors = estimate_factors(reader, layers, lambda at: reader(at)[0], islice(text, flat.batches), seed=seed)
    return {name: eigenpairs(factors.pop(name), flat.mass) for name in matrices}


def _linear(model: PreTrainedModel, matrices: Collection[str]) -> dict[str, nn.Linear]:
    """The linear layers whose weights the matrices are."""
    linear = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    other = [name for name in matrices if name not in linear]
    if other:
        raise BaseModelError(
            f"{other[0]} is not the weight of a linear layer, so its flat directions are not known; leave it out by "
            "base.preserve, or perturb without flat"
        )
    return {name: linear[name] for name in matrices}


def _matrices(
    model: PreTrainedModel, stage: PerturbStage, preserve: tuple[str, ...]
) -> Iterator[tuple[str, nn.Parameter]]:
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or _is_kept(name, preserve):
            continue
        layer = _LAYER.search(name)
        if stage.layers != "all" and (layer is None or int(layer[1]) not in stage.layers):
            continue
        if ("all" in stage.where and layer is not None) or any(
            part in PARTS and PARTS[part].search(name) for part in stage.where
        ):
            yield name, weight
