"""What a run needs, loaded and checked before its first step: base, teacher, facts, streams, canaries, probes."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.artifact import CoreRecord, DataRecord, record_of_base
from trainer.base_model import Base, load_base
from trainer.canary import CanarySet, canary_set
from trainer.config import MetabolizeStage, RegenerateStage, RunConfig
from trainer.fact import Targets
from trainer.inquiry import Known, know
from trainer.machine import Machine
from trainer.objective import layers_of
from trainer.probe import ProbeBank
from trainer.reader import Reader, check_reading
from trainer.sources import inputs_of, streams_of, targets_of, world_of
from trainer.stage import check_stages
from trainer.streams.fact import FactStream
from trainer.streams.feed import Stream
from trainer.world.world import World


@dataclass(frozen=True)
class Prepared:
    """All that does not change while a run goes on."""

    config: RunConfig
    machine: Machine
    base: Base
    made_of: CoreRecord | None
    teacher: Reader
    targets: Targets
    known: Known
    world: World
    streams: dict[str, Stream]
    inputs: tuple[DataRecord, ...]
    canaries: CanarySet


def prepare(
    config: RunConfig, known: Known | None = None, *, most_asked: int | None = None, draft: Path | None = None
) -> Prepared:
    """Load and check everything that a run needs.

    `known` spares the question what the base knows; `most_asked` puts it for a sample of so many facts. `draft` takes
    what is not to be left in the run's folder.

    Raises:
        TrainerError: each thing that is missing or does not fit, with what to do.
    """
    torch.manual_seed(config.seed)
    machine = Machine(config.compute)
    targets = targets_of(config.facts)
    made_of = record_of_base(config.base.model)
    base = load_base(config.base, seed=config.seed)
    teacher = Reader(copy.deepcopy(base.model)).eval().requires_grad_(False).to(machine.device)
    check_reading(teacher)
    if known is None:
        known = know(base, teacher, machine, world_of(config, targets.facts), config, most=most_asked)
    world = world_of(config, known.facts)
    streams = streams_of(config, world, base.encoder, config.output, draft)
    check_stages(config, teacher, streams)
    canaries = canary_set(config, world, base.encoder)
    inputs = inputs_of(config, targets, streams)
    return Prepared(config, machine, base, made_of, teacher, targets, known, world, streams, inputs, canaries)


def probes_of(prepared: Prepared, stage: MetabolizeStage | RegenerateStage, number: int) -> ProbeBank | None:
    """The probes of a stage, where it reverses their gradients."""
    reversal, fact = stage.losses.reversal, prepared.streams["fact"]
    if reversal is None:
        return None
    assert isinstance(fact, FactStream), "the fact stream knows its classes"
    bank = ProbeBank(
        layers_of(reversal.layers, prepared.teacher.layers),
        int(prepared.base.model.config.hidden_size),
        fact.classes.chance_nats,
        learning_rate=reversal.probe_learning_rate,
        seed=prepared.config.seed * 1000 + number,
    )
    return bank.to(prepared.machine.device)
