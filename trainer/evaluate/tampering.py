"""C. Stays gone, without training: coarser weights, a part of the base put back, the average with the base.

Pure functions of weights; each gives a changed copy and leaves the model as it was.
Source of the threat: quantization brings unlearned facts back, Zhang et al., arXiv 2410.16454.
"""

import copy
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from trainer.evaluate.behaviour import recall_direct
from trainer.evaluate.examinee import Examinee
from trainer.evaluate.outcome import Curve, Ledger, Role
from trainer.evaluate.profile import Profile
from trainer.evaluate.question import Exam, recall
from trainer.reader import vocabulary_tables

_GROUP = 64


def attack_weights(
    exam: Exam,
    examinee: Examinee,
    base: Examinee,
    ledger: Ledger,
    profile: Profile,
    tick: Callable[[str], None],
    *,
    stand_ins: bool,
) -> None:
    """Every tampering of C for one model; `stand_ins` also enters the guessing reference."""
    facts = exam.sample(profile.questions)
    real = recall(exam, facts)
    fake = recall(exam, facts, invented=True) if stand_ins else []

    def enter(measure: str, model: PreTrainedModel, note: str = "") -> float:
        tick(measure)
        changed = examinee.replaced(model)
        right = recall_direct(changed, real, profile.batch)
        ledger.add(measure, examinee.role, right, seeds=(exam.seed,), note=note)
        if fake:
            ledger.add(measure, Role.STAND_IN, recall_direct(changed, fake, profile.batch), seeds=(exam.seed,))
        return sum(right) / len(right)

    enter("C.int8", quantize(examinee.model, 8, group=0))
    enter("C.int4", quantize(examinee.model, 4, group=_GROUP))
    if examinee.role is Role.BASE:  # it would be put back into itself
        return
    if not _same_shapes(examinee.model, base.model):
        parts = "C.layer_restored, C.vocabulary_restored and C.averaged"
        ledger.skip(f"{parts} ({examinee.role}): its weights do not have the base's shapes")
        return
    enter("C.averaged", average(examinee.model, base.model, 0.5))
    enter("C.vocabulary_restored", restore_vocabulary(examinee.model, base.model))
    shares = []
    layers = _some_layers(examinee.model, profile.tampered_layers)
    best: tuple[float, list[bool], int] | None = None
    for layer in layers:
        tick("C.layer_restored")
        right = recall_direct(examinee.replaced(restore_layer(examinee.model, base.model, layer)), real, profile.batch)
        shares.append(sum(right) / len(right))
        if best is None or shares[-1] > best[0]:
            best = shares[-1], right, layer
    every = int(examinee.model.config.num_hidden_layers)
    if len(layers) < every:
        ledger.skip(f"C.layer_restored: {len(layers)} of {every} layers were restored, one at a time")
    if best is not None:
        ledger.add(
            "C.layer_restored",
            examinee.role,
            best[1],
            seeds=(exam.seed,),
            note=f"worst of {len(layers)}: layer {best[2]}",
        )
        curve = Curve("C.layer_restored", examinee.role, "", tuple(map(float, layers)), tuple(shares), n=len(real))
        ledger.curves.append(curve)


@torch.no_grad()
def quantize(model: PreTrainedModel, bits: int, group: int) -> PreTrainedModel:
    """A copy whose linear layers are rounded to the nearest of 2^bits levels and written back as floats.

    One scale a row, or one for each `group` weights of a row where `group` is not 0. Embeddings and the output head
    stay, as in the usual weight-only formats.
    """
    changed = copy.deepcopy(model)
    head = changed.get_output_embeddings()  # type: ignore[no-untyped-call]
    for module in changed.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            module.weight.copy_(round_to_nearest(module.weight, bits, group))
    return changed


def round_to_nearest(weight_OI: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """Symmetric rounding: each row's (or group's) largest magnitude is the outermost level."""
    rows, columns = weight_OI.shape
    width = group if group and columns % group == 0 else columns
    grouped = weight_OI.float().reshape(rows, columns // width, width)
    top = 2 ** (bits - 1) - 1
    scale = grouped.abs().amax(-1, keepdim=True).clamp(min=1e-12) / top
    rounded: torch.Tensor = (
        ((grouped / scale).round().clamp(-top, top) * scale).reshape(rows, columns).to(weight_OI.dtype)
    )
    return rounded


@torch.no_grad()
def average(model: PreTrainedModel, other: PreTrainedModel, share: float) -> PreTrainedModel:
    """A copy with `share` of the other model's weights."""
    changed = copy.deepcopy(model)
    theirs = dict(other.named_parameters())
    for name, weight in changed.named_parameters():
        if name in theirs and theirs[name].shape == weight.shape:
            weight.lerp_(theirs[name].to(weight.dtype), share)
    return changed


@torch.no_grad()
def restore_layer(model: PreTrainedModel, other: PreTrainedModel, layer: int) -> PreTrainedModel:
    """A copy in which one layer is the other model's."""
    changed = copy.deepcopy(model)
    theirs = dict(other.named_parameters())
    for name, weight in changed.named_parameters():
        if _layer_of(name) == layer:
            weight.copy_(theirs[name])
    return changed


@torch.no_grad()
def restore_vocabulary(model: PreTrainedModel, other: PreTrainedModel) -> PreTrainedModel:
    """A copy that reads and writes tokens as the other model does: what a swap of names hid, this would show."""
    changed = copy.deepcopy(model)
    for mine_VH, theirs_VH in zip(vocabulary_tables(changed), vocabulary_tables(other), strict=True):
        both = min(len(mine_VH), len(theirs_VH))  # a core may have tokens for tags that its base has not
        mine_VH[:both] = theirs_VH[:both].to(mine_VH.dtype)
    return changed


def _layer_of(name: str) -> int | None:
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _some_layers(model: PreTrainedModel, most: int) -> list[int]:
    count = int(model.config.num_hidden_layers)
    wanted = min(most, count)
    return sorted({round((place + 0.5) * count / wanted - 0.5) for place in range(wanted)})


def _same_shapes(model: PreTrainedModel, other: PreTrainedModel) -> bool:
    mine = {name: weight.shape for name, weight in model.named_parameters() if _layer_of(name) is not None}
    theirs = {name: weight.shape for name, weight in other.named_parameters() if _layer_of(name) is not None}
    return mine == theirs
