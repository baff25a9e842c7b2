"""What a rival is, as the file of a comparison says it, and how it is applied to a base.

Nothing at all, a core that was made elsewhere, losses of our rivals on the loop, stages of the trainer's own, the
curvature edit, the subnet edit. Those that are applied here read the same streams.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field, model_validator
from transformers import PreTrainedModel

from trainer.average import Average, mean_weights
from trainer.baselines.curvature import edit, mlp_layers
from trainer.baselines.rival import Rival, RivalLosses
from trainer.baselines.subnet import Losses, drop, locate
from trainer.checkpoint import Cursor
from trainer.config import (
    AverageStage,
    MetabolizeStage,
    PerturbStage,
    RegenerateStage,
    Stage,
    Strict,
    TrainingStage,
    averaged_stages,
    parse_config,
)
from trainer.curvature import Factors, estimate_factors
from trainer.errors import ConfigError
from trainer.loop import StepReport, make_optimizer, run_stage
from trainer.losses import Loss
from trainer.losses.token import cross_entropy
from trainer.machine import Machine
from trainer.objective import Metabolism, Objective, layers_of
from trainer.perturb import perturb
from trainer.probe import ProbeBank
from trainer.reader import Places, Reader, read_stream
from trainer.streams.fact import FactStream, spelled_in
from trainer.streams.feed import Feed, Stream

Value = float | tuple[int, ...] | None
"""What a search may try: a number; some layers; or none named, which is all of them."""


class _Method(Strict):
    """What all methods share."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="names the folder")
    title: str = Field(description="stands in the table")
    search: dict[str, tuple[Value, ...]] = Field(
        default_factory=dict,
        description="values to try: dotted key to list; a value is a number, a list of layers, or null for all of "
        "them; the grid is cut at the budget",
    )
    trials: int | None = Field(
        default=None, ge=1, description="settings this one may try; as many as the others if none"
    )


class Untouched(_Method):
    """The base as it is; as `rag`, with the memory's passages in its questions."""

    kind: Literal["none", "rag"]


class Made(_Method):
    """A core that was made elsewhere: by `metabolism train`, or by another project from the same base."""

    kind: Literal["core"]
    model: str = Field(description="a folder, or a name on the model hub")


class Training(Strict):
    """Steps of the loop."""

    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=10, ge=0)


class ByLosses(_Method):
    """A rival's loss on the fact stream, with the anchor on the logic stream."""

    kind: Literal["losses"]
    losses: RivalLosses
    training: Training


class ByStages(_Method):
    """Stages of the trainer's own: the paper's protocol, shrink-and-perturb with distillation, ours."""

    kind: Literal["stages"]
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _averages(self) -> "ByStages":
        averaged_stages(self.stages)
        return self


class ByCurvature(_Method):
    """The K-FAC edit, or plain SVD."""

    kind: Literal["curvature", "spectrum"]
    share: float = Field(gt=0, le=1, description="mass that is kept")
    batches: int = Field(default=8, ge=1, description="batches of the logic stream for the factors")
    blocks: tuple[int, ...] | None = Field(default=None, description="which layers; all where none is named")


class BySubnet(_Method):
    """BalancedSubnet."""

    kind: Literal["subnet"]
    ratio: float = Field(gt=0, lt=1, description="share of the MLP weights that is dropped")
    balance: float = Field(default=0.5, gt=0, lt=1, description="weight of forgetting against keeping")
    steps: int = Field(default=60, ge=1)
    rate: float = Field(default=0.1, gt=0)


Applied = Untouched | ByLosses | ByStages | ByCurvature | BySubnet
"""What is applied to a base here; nothing is a method too."""
Method = Annotated[Applied | Made, Field(discriminator="kind")]
_AnyMethod = TypeVar("_AnyMethod", bound=_Method)


@dataclass(frozen=True)
class Workshop:
    """What every method works with: the base, its frozen copy, the streams."""

    base: PreTrainedModel
    teacher: Reader
    streams: Mapping[str, Stream]
    machine: Machine
    seed: int = 0
    workers: int = 0

    def batches(self, name: str, first: int = 0) -> Iterator[Places]:
        """The batches of one stream on the machine's device, without end."""
        return read_stream(self.streams[name], self.machine.device, first)


class _Quiet:
    """A watcher that watches nothing."""

    def after_step(self, cursor: Cursor, report: StepReport) -> None:
        """See `trainer.loop.Watcher`."""


def apply(method: Applied, shop: Workshop) -> PreTrainedModel:
    """Apply a method to a copy of the base.

    Raises:
        TrainerError: the method broke the model: a loss or a gradient that is not finite.
    """
    torch.manual_seed(shop.seed)
    model = copy.deepcopy(shop.base)
    match method:
        case Untouched():
            pass
        case ByLosses():
            stage = TrainingStage(**method.training.model_dump())
            _train(model, Rival(method.losses, shop.teacher, shop.seed), stage, shop, 0)
        case ByStages():
            _take_stages(model, method.stages, shop)
        case ByCurvature():
            layers = mlp_layers(model, method.blocks)
            factors = measure(model, shop, method) if method.kind == "curvature" else None
            edit(layers, factors, method.share)
        case BySubnet():
            names = [f"{name}.weight" for name in mlp_layers(model)]
            reader = Reader(model)
            prefixed = [f"model.{name}" for name in names]
            masks = locate(
                reader, prefixed, _draws(shop), method.ratio, method.balance, method.steps, method.rate, shop.seed
            )
            drop(reader, masks)
    model.train(mode=False)
    return model


def measure(model: PreTrainedModel, shop: Workshop, method: ByCurvature) -> dict[str, Factors]:
    """The factors of every MLP layer over text that is to be kept, with labels drawn from the model."""
    reader = Reader(model)
    batches = itertools.islice(shop.batches("logic"), method.batches)
    return estimate_factors(model, mlp_layers(model, method.blocks), lambda at: reader(at)[0], batches, seed=shop.seed)


def grid(method: _AnyMethod, trials: int) -> list[tuple[dict[str, Value], _AnyMethod]]:
    """The settings to try, at most its own `trials` or else these, spread over the grid; without a search, only one."""
    if not method.search:
        return [({}, method)]
    trials = method.trials or trials
    combinations = list(itertools.product(*method.search.values()))
    step = max(1.0, len(combinations) / trials)
    chosen = [combinations[int(place * step)] for place in range(min(trials, len(combinations)))]
    settings = [dict(zip(method.search, values, strict=True)) for values in chosen]
    return [(setting, changed(method, setting)) for setting in settings]


def worded(setting: Mapping[str, Value]) -> str:
    """A setting as people read it; empty where there was nothing to set."""
    return ", ".join(f"{key} {_worded(value)}" for key, value in setting.items())


def _worded(value: Value) -> str:
    if value is None:
        return "all"
    return " ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"


def changed(method: _AnyMethod, setting: Mapping[str, Value]) -> _AnyMethod:
    """The method with some values replaced; keys are dotted, a number names a stage.

    Raises:
        ConfigError: a value is out of its bounds, or a key does not exist.
    """
    content: Any = method.model_dump()
    for key, value in setting.items():
        *path, last = key.split(".")
        place = content
        try:
            for part in path:
                place = place[int(part)] if part.isdigit() else place[part]
            counted = isinstance(place[last], int) and not isinstance(place[last], bool)
        except (LookupError, TypeError) as error:
            raise ConfigError(f"{method.name} has no {key}, so there is nothing to search there") from error
        place[last] = int(value) if counted and isinstance(value, float) else value
    return parse_config(type(method), content, f"{method.name} with {worded(setting)}")


def _take_stages(model: PreTrainedModel, stages: Sequence[Stage], shop: Workshop) -> None:
    first = 0
    ends: dict[int, dict[str, torch.Tensor]] = {}
    for number, stage in enumerate(stages):
        if isinstance(stage, PerturbStage):
            logic, spelled = shop.batches("logic"), spelled_in(shop.streams)
            perturb(model, stage, seed=shop.seed + number, text=logic, spelled=spelled)
            continue
        if isinstance(stage, AverageStage):
            model.load_state_dict(mean_weights(ends[averaged] for averaged in stage.of))
            continue
        objective = Metabolism(stage.losses, shop.teacher, _probes(stage, shop, number))
        first = _train(model, objective, stage, shop, first)
        if number in averaged_stages(stages):
            ends[number] = {name: weight.clone() for name, weight in model.state_dict().items()}


def _probes(stage: MetabolizeStage | RegenerateStage, shop: Workshop, number: int) -> ProbeBank | None:
    reversal, fact = stage.losses.reversal, shop.streams["fact"]
    if reversal is None or not isinstance(fact, FactStream):
        return None
    return ProbeBank(
        layers_of(reversal.layers, shop.teacher.layers), int(shop.base.config.hidden_size), fact.classes.chance_nats,
        learning_rate=reversal.probe_learning_rate, seed=shop.seed * 1000 + number,
    ).to(shop.machine.device)  # fmt: skip


def _train(model: PreTrainedModel, objective: Objective, stage: TrainingStage, shop: Workshop, first: int) -> int:
    """Run a stage on the loop; the number of the next batch comes back."""
    reader = Reader(model)
    optimizer = make_optimizer(reader, stage, shop.machine.device)
    names = {name: shop.streams[name] for name in objective.streams}
    with Feed(names, workers=shop.workers) as feed:
        start = Cursor(0, 0, first)
        end = run_stage(
            reader, optimizer, objective, stage, feed, shop.machine, _Quiet(), start, lambda: False,
            Average.of(reader, stage.average),
        )  # fmt: skip
    return end.total


def _draws(shop: Workshop) -> Iterator[Losses]:
    """Pairs of losses for BalancedSubnet: on the next batch to forget, and on the next to keep."""
    for fact, logic in zip(shop.batches("fact"), shop.batches("logic"), strict=False):

        def losses(call: Callable[..., Any], fact: Places = fact, logic: Places = logic) -> tuple[Loss, Loss]:
            return _cross_entropy(call, fact), _cross_entropy(call, logic)

        yield losses


def _cross_entropy(call: Callable[..., Any], at: Places) -> Loss:
    logits_NV, _ = call(at)
    return cross_entropy(logits_NV, at.labels_N, torch.ones_like(at.labels_N, dtype=torch.float32))


def at_work(shop: Workshop, base: PreTrainedModel, streams: Mapping[str, Stream]) -> Workshop:
    """The same workshop with another base and other streams."""
    teacher = Reader(copy.deepcopy(base)).train(mode=False).requires_grad_(False)
    return replace(shop, base=base, teacher=teacher.to(shop.machine.device), streams=streams)
