"""B. Gone inside: can a fresh probe or the logit lens still read the fact from the hidden states?

Relations with few values are probed, since a probe must see each class often; those with many values are read by the
logit lens. The name-only control reads how the subject is spelled and no model at all: a base's own embeddings of a
name may hold its facts, as they do where the tokenizer spells a subject with one token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.random_projection import GaussianRandomProjection

from trainer.evaluate.examinee import Examinee
from trainer.evaluate.outcome import Curve, Ledger, Role
from trainer.evaluate.probe import Kind, Reading, Split, majority, read, split
from trainer.evaluate.profile import Profile
from trainer.evaluate.question import Exam, Item, recall
from trainer.evaluate.score import hidden_states
from trainer.evaluate.statistic import interval
from trainer.fact import relations_in_classes

_SPELLING = 256
_POSITIONS = ("end of the subject", "end of the prompt")


@dataclass(frozen=True, slots=True)
class ProbeTask:
    """One relation to probe: a subject a row, asked once in a seen and once in a held-out phrasing."""

    relation: str
    fitted: tuple[Item, ...]
    asked: tuple[Item, ...]
    labels: torch.Tensor


def probe_tasks(exam: Exam, profile: Profile) -> list[ProbeTask]:
    """The relations that can be probed, the largest first; classes with too few subjects are left out."""
    tasks = []
    for relation, usable in relations_in_classes(exam.facts):
        classes = sorted({fact.value for fact in usable})
        chosen = exam.rng(f"probe/{relation}").sample(usable, min(profile.probe_subjects, len(usable)))
        labels = torch.tensor([classes.index(fact.value) for fact in chosen])
        tasks.append(
            ProbeTask(relation, tuple(recall(exam, chosen, held_out=False)), tuple(recall(exam, chosen)), labels)
        )
    return tasks[: profile.probe_relations]


def attack_probes(
    tasks: Sequence[ProbeTask], examinee: Examinee, ledger: Ledger, profile: Profile, tick: Callable[[str], None]
) -> None:
    """Linear and MLP probes at every layer and two positions of one model, with the shuffled-label control."""
    outcomes: dict[str, list[bool]] = {"B.probe_linear": [], "B.probe_mlp": [], "B.probe_shuffled": []}
    notes = {}
    for task in tasks:
        tick(f"B.probe {task.relation}")
        fitted_LND = _states(examinee, task.fitted, profile.batch)
        asked_LND = _states(examinee, task.asked, profile.batch)
        some = _evenly(fitted_LND.shape[0], 2 * profile.probe_mlp_layers)
        notes = {name: f"{len(some)} of {fitted_LND.shape[0]} places" for name in ("B.probe_mlp", "B.probe_shuffled")}
        readings = []
        for seed in range(profile.probe_restarts):
            parts = split(len(task.labels), seed)
            readings.append(read(fitted_LND, asked_LND, task.labels, parts, "linear", seed))
            outcomes["B.probe_linear"] += readings[-1].right
            outcomes["B.probe_mlp"] += read(fitted_LND[some], asked_LND[some], task.labels, parts, "mlp", seed).right
            mixed = task.labels[torch.randperm(len(task.labels), generator=torch.Generator().manual_seed(seed + 100))]
            outcomes["B.probe_shuffled"] += read(fitted_LND[some], asked_LND[some], mixed, parts, "linear", seed).right
        ledger.curves += _layer_curves(task, examinee.role, readings)
    groups = counted_subjects(tasks, profile)
    for measure, right in outcomes.items():
        note = notes.get(measure, "")
        ledger.add(measure, examinee.role, right, seeds=tuple(range(profile.probe_restarts)), note=note, groups=groups)


def attack_names(tasks: Sequence[ProbeTask], ledger: Ledger, profile: Profile, tick: Callable[[str], None]) -> None:
    """What no model gives: the majority class, and a probe on the name's spelling; the better is the reference."""
    tick("B.probe_name")
    seeds = tuple(range(profile.probe_restarts))
    most: list[bool] = []
    named: list[bool] = []
    best: dict[Kind, list[bool]] = {"linear": [], "mlp": []}
    for task in tasks:
        names_1ND = spelling([item.fact.subject for item in task.fitted])
        for seed in seeds:
            parts = split(len(task.labels), seed)
            plain = majority(task.labels, parts)
            most += plain
            for kind in best:
                alone = read(names_1ND, names_1ND, task.labels, parts, kind, seed).right
                named += alone if kind == "linear" else ()
                best[kind] += max(plain, alone, key=sum)
    groups = counted_subjects(tasks, profile)
    ledger.add("B.majority", Role.CHANCE, most, seeds=seeds, groups=groups)
    ledger.add("B.probe_name", Role.CHANCE, named, seeds=seeds, groups=groups)
    note = "the better of majority and name alone, for each relation and restart"
    ledger.add("B.probe_linear", Role.CHANCE, best["linear"], seeds=seeds, note=note, groups=groups)
    ledger.add("B.probe_mlp", Role.CHANCE, best["mlp"], seeds=seeds, note=note, groups=groups)


def counted_subjects(tasks: Sequence[ProbeTask], profile: Profile) -> tuple[int, ...]:
    """Which subject of which relation each outcome of a probe is about: restarts may count one subject repeatedly."""
    groups: list[int] = []
    for place, task in enumerate(tasks):
        for seed in range(profile.probe_restarts):
            counted_N = split(len(task.labels), seed).count
            groups += [place * profile.probe_subjects + subject for subject in counted_N.tolist()]
    return tuple(groups)


@torch.no_grad()
def attack_lens(
    exam: Exam, examinee: Examinee, ledger: Ledger, profile: Profile, tick: Callable[[str], None], *, invented: bool
) -> None:
    """Read every layer with the model's own output head; reciprocal rank of the value's first token."""
    tick("B.lens")
    items = recall(exam, exam.sample(profile.questions), invented=invented)
    prompts = [examinee.encode(examinee.render(item.prompt)) for item in items]
    states_LND = hidden_states(examinee, prompts, [[len(prompt) - 1] for prompt in prompts], profile.batch)[:, :, 0]
    wanted_N = torch.tensor([examinee.encode(item.fact.value)[0] for item in items])
    head: Any = examinee.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    norm = _final_norm(examinee)
    reciprocal = []
    for layer, states_ND in enumerate(states_LND):
        inner_ND = states_ND.to(examinee.device, head.weight.dtype)
        last = layer == len(states_LND) - 1  # transformers gives the last state after the norm
        logits_NV = head(inner_ND if last else norm(inner_ND)).float().cpu()
        ranks_N = 1 + (logits_NV > logits_NV.gather(1, wanted_N[:, None])).sum(1)
        reciprocal.append((1 / ranks_N.float()).tolist())
    best = max(range(len(reciprocal)), key=lambda layer: sum(reciprocal[layer]))
    role = Role.STAND_IN if invented else examinee.role
    ledger.add("B.lens", role, reciprocal[best], seeds=(exam.seed,), note=f"layer {best}")
    bounds = [interval(row) for row in reciprocal]
    layers = tuple(float(layer) for layer in range(len(reciprocal)))
    ledger.curves.append(
        Curve("B.lens", role, "", layers, tuple(b.value for b in bounds), tuple(b.low for b in bounds),
              tuple(b.high for b in bounds), len(items))
    )  # fmt: skip


def _states(examinee: Examinee, items: Sequence[Item], batch: int) -> torch.Tensor:
    """Hidden states [L, N, D] of every layer at every position, positions flattened into layers, beside the model."""
    prompts, positions = [], []
    for item in items:
        ids, place = locate(examinee, item)
        prompts.append(ids)
        positions.append([place, len(ids) - 1])
    states_LNPD = hidden_states(examinee, prompts, positions, batch)
    return states_LNPD.permute(0, 2, 1, 3).flatten(0, 1).to(examinee.device)


def locate(examinee: Examinee, item: Item) -> tuple[list[int], int]:
    """A prompt's ids, and the place of the last token of its subject."""
    text = examinee.render(item.prompt)
    coded = examinee.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    end = text.rindex(item.fact.subject) + len(item.fact.subject)
    place = max(place for place, (start, _) in enumerate(coded["offset_mapping"]) if start < end)
    return list(coded["input_ids"]), place


def spelling(names: Sequence[str]) -> torch.Tensor:
    """Character n-grams of names, words kept apart, at random angles in `_SPELLING` dimensions: [1, N, D]."""
    grams = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 4), n_features=2**12).transform(names)
    states_ND = GaussianRandomProjection(_SPELLING, random_state=0).fit_transform(grams)
    return torch.from_numpy(states_ND).float()[None]


def _layer_curves(task: ProbeTask, role: Role, readings: Sequence[Reading]) -> list[Curve]:
    """Accuracy by layer, one curve a position, mean over restarts."""
    mean = torch.tensor([reading.by_layer for reading in readings]).mean(0)
    curves = []
    for place, position in enumerate(_POSITIONS):
        y = tuple(mean[place :: len(_POSITIONS)].tolist())
        x = tuple(float(layer) for layer in range(len(y)))
        n = sum(len(reading.right) for reading in readings)
        curves.append(Curve("B.probe_linear", role, f"{task.relation}, {position}", x, y, n=n))
    return curves


def unprobed(exam: Exam, tasks: Sequence[ProbeTask]) -> tuple[str, ...]:
    """The relations of the facts that no probe reads."""
    probed = {task.relation for task in tasks}
    return tuple(sorted({fact.relation for fact in exam.facts} - probed))


def _evenly(count: int, wanted: int) -> list[int]:
    """Places spread evenly over `count`, the last always among them."""
    if wanted >= count:
        return list(range(count))
    return sorted({round((place + 1) * count / wanted) - 1 for place in range(wanted)})


def _final_norm(examinee: Examinee) -> Any:
    inner: Any = examinee.model.base_model
    for name in ("norm", "final_layer_norm", "ln_f", "final_layernorm"):
        if hasattr(inner, name):
            return getattr(inner, name)
    return torch.nn.Identity()


__all__ = ["ProbeTask", "Split", "attack_lens", "attack_names", "attack_probes", "locate", "probe_tasks"]
