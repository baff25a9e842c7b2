"""What a step minimises: weighted losses over streams. A method is a list of these, never a loop of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from trainer.config import AnchorConfig, LossesConfig
from trainer.errors import ConfigError
from trainer.losses import Loss
from trainer.losses.divergence import hidden_distance, kl_divergence
from trainer.losses.reversal import warm_up
from trainer.losses.token import cross_entropy, unlikelihood
from trainer.probe import ProbeBank
from trainer.reader import Places, Reader
from trainer.streams.batch import Batch

Counts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Term:
    """One loss on one part of a step: its share of the step's loss, and its sum for the report."""

    name: str
    weight: float
    loss: Loss


class Objective(Protocol):
    """Knows its streams, counts before it computes, and computes one stream at a time."""

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams it needs, the one whose pass reaches every weight last."""

    def count(self, batches: Mapping[str, Batch]) -> dict[str, float]:
        """Over how many places each loss of a part will be summed."""

    def compute(
        self, model: nn.Module, stream: str, places: Mapping[str, Places], counts: Counts, step: int
    ) -> list[Term]:
        """The losses that one stream's pass gives. `model` is the reader, wrapped or not."""


class NextToken:
    """Cross-entropy on a stream: what pretraining minimises."""

    def __init__(self, stream: str) -> None:
        self.streams: tuple[str, ...] = (stream,)

    def count(self, batches: Mapping[str, Batch]) -> dict[str, float]:
        """See `Objective`."""
        return {"next_token": float(len(batches[self.streams[0]].rows_N))}

    def compute(
        self, model: nn.Module, stream: str, places: Mapping[str, Places], counts: Counts, step: int
    ) -> list[Term]:
        """See `Objective`."""
        del counts, step
        at = places[stream]
        logits_NV, _ = model(at)
        return [Term("next_token", 1.0, cross_entropy(logits_NV, at.labels_N, _ones(at.labels_N)))]


class Metabolism:
    """The losses of metabolize and regenerate."""

    def __init__(self, losses: LossesConfig, teacher: Reader, probes: ProbeBank | None) -> None:
        self.losses, self.teacher, self.probes = losses, teacher, probes
        self.pending: list[tuple[tuple[Tensor, ...], Tensor]] = []
        """Hidden states of the step's parts, for the probes' own update."""

    @property
    def streams(self) -> tuple[str, ...]:
        """See `Objective`."""
        names = [*self.passes]
        if self.losses.never_knew is not None:
            names.append("never_knew")
        return tuple(names)

    @property
    def passes(self) -> tuple[str, ...]:
        """The streams that the model itself reads."""
        losses = self.losses
        names = []
        if losses.reversal or losses.never_knew or losses.unlikelihood:
            names.append("fact")
        if losses.route:
            names.append("route")
        return (*names, *sorted(losses.kept, reverse=True))

    def count(self, batches: Mapping[str, Batch]) -> dict[str, float]:
        """See `Objective`."""
        counts: dict[str, float] = {}
        if (fact := batches.get("fact")) is not None:
            first = float(fact.first_N.sum())
            counts |= {"reversal": float(len(fact.rows_M)), "never_knew": first}
            counts["unlikelihood"] = len(fact.rows_N) - first
        if (route := batches.get("route")) is not None:
            counts["route"] = float(len(route.rows_N))
        for name, loss in (("practice", self.losses.practice), ("anchor", self.losses.anchor)):
            for stream in () if loss is None else loss.streams:
                counts[f"{name}/{stream}"] = float(len(batches[stream].rows_N))
        return counts

    def compute(
        self, model: nn.Module, stream: str, places: Mapping[str, Places], counts: Counts, step: int
    ) -> list[Term]:
        """See `Objective`."""
        del counts
        match stream:
            case "fact":
                return self._on_facts(model, places, step)
            case "route":
                return self._on_route(model, places["route"])
            case _:
                return self._on_kept(model, stream, places[stream])

    def _on_facts(self, model: nn.Module, places: Mapping[str, Places], step: int) -> list[Term]:
        at, losses, terms = places["fact"], self.losses, []
        layers = self.probes.layers if self.probes is not None and losses.reversal else ()
        logits_NV, hidden = model(at, layers, at_probes=True)
        if self.probes is not None and losses.reversal:
            strength = losses.reversal.weight * warm_up(step, losses.reversal.warmup_steps)
            reversed_sum = self.probes.reversed_sum(hidden, at.classes_M, strength, capped=losses.reversal.capped)
            terms.append(Term("reversal", 1.0, Loss(reversed_sum, torch.tensor(float(len(at.rows_M))))))
            self.pending.append((tuple(layer.detach() for layer in hidden), at.classes_M))
        if losses.never_knew:
            with torch.no_grad():
                reference_NV, _ = self.teacher(places["never_knew"])
            first = at.first_N
            loss = kl_divergence(
                logits_NV[first], reference_NV, torch.ones(len(reference_NV), device=reference_NV.device)
            )
            terms.append(Term("never_knew", losses.never_knew.weight, loss))
        if losses.unlikelihood:
            mask_N = (~at.first_N).float()
            terms.append(Term("unlikelihood", losses.unlikelihood.weight, unlikelihood(logits_NV, at.labels_N, mask_N)))
        return terms

    def _on_route(self, model: nn.Module, at: Places) -> list[Term]:
        assert self.losses.route is not None, "the route stream is only drawn for its loss"
        logits_NV, _ = model(at)
        return [Term("route", self.losses.route.weight, cross_entropy(logits_NV, at.labels_N, _ones(at.labels_N)))]

    def _on_kept(self, model: nn.Module, stream: str, at: Places) -> list[Term]:
        anchor, practice, terms = self.losses.anchor, self.losses.practice, []
        anchored = anchor is not None and stream in anchor.streams
        layers = layers_of(anchor.layers, self.teacher.layers) if anchored and anchor and anchor.kind == "l2" else ()
        logits_NV, hidden = model(at, layers)
        if anchor is not None and anchored:
            terms.append(Term(f"anchor/{stream}", anchor.weight, self._anchor(anchor, at, layers, logits_NV, hidden)))
        if practice is not None and stream in practice.streams:
            loss = cross_entropy(logits_NV, at.labels_N, _ones(at.labels_N))
            terms.append(Term(f"practice/{stream}", practice.weight, loss))
        return terms

    def _anchor(
        self, anchor: AnchorConfig, at: Places, layers: tuple[int, ...], logits_NV: Tensor, hidden: tuple[Tensor, ...]
    ) -> Loss:
        with torch.no_grad():
            reference_NV, reference = self.teacher(at, layers)
        mask_N = _ones(at.labels_N)
        if anchor.kind == "kl":
            return kl_divergence(logits_NV, reference_NV, mask_N)
        parts = [hidden_distance(mine, theirs, mask_N) for mine, theirs in zip(hidden, reference, strict=True)]
        return Loss(torch.stack([part.sum for part in parts]).mean(), parts[0].count)


def layers_of(layers: str | tuple[int, ...], count: int) -> tuple[int, ...]:
    """The hidden states that a config names: all, the deep half, or as listed; 0 is the embeddings.

    Raises:
        ConfigError: one of those listed is not there.
    """
    if layers == "all":
        return tuple(range(1, count + 1))
    if layers == "deep":
        return tuple(range(count // 2 + 1, count + 1))
    assert not isinstance(layers, str), "the config admits no other words"
    check_layers(layers, range(count + 1), f"the base has {count} layers, and hidden states")
    return layers


def check_layers(layers: tuple[int, ...], there: range, what: str) -> None:
    """Refuse numbers that are not there.

    Raises:
        ConfigError: which they are, and which there are; `what` they are the numbers of stands in the message.
    """
    missing = [layer for layer in layers if layer not in there]
    if missing:
        raise ConfigError(
            f"layers: there is no {', '.join(map(str, missing))}; {what} have the numbers {there[0]} to {there[-1]}"
        )


def passes_of(objective: Objective) -> tuple[str, ...]:
    """The streams that the model itself reads; the others are read by the teacher alone."""
    return objective.passes if isinstance(objective, Metabolism) else objective.streams


def _ones(labels_N: Tensor) -> Tensor:
    return torch.ones_like(labels_N, dtype=torch.float32)
