"""`metabolism check`: everything that a run needs, tried out small, before a night is spent on it."""

import math
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from trainer.adapter import prepare_model
from trainer.average import Average
from trainer.config import LossesConfig, MetabolizeStage, RegenerateStage, RunConfig, TrainingStage
from trainer.errors import OutOfMemoryError
from trainer.loop import make_optimizer, take_step
from trainer.objective import Metabolism
from trainer.perturb import Chosen
from trainer.preparation import Prepared, prepare, probes_of
from trainer.progress import watched
from trainer.reader import Reader
from trainer.run import RUN_FILE
from trainer.sources import left_out
from trainer.stage import check_stages
from trainer.streams.feed import Feed

_DRY_STEPS = 2
_SHOWN = 20
_MOST_ASKED = 2000
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class StageRehearsal:
    """Dry steps of one stage, or of an earlier one with the same losses. The time a step is that of the second, which
    finds everything warm.

    `total_s` holds the stage's looks as well; not checkpoints, nor waiting for batches.
    """

    stage: str
    losses: dict[str, float]
    step_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a check found."""

    base: str
    parameters: int
    added_tokens: tuple[str, ...]
    facts: int
    facts_asked: int
    """A sample where there are very many; 0 where `facts.known_only` is off."""
    facts_unknown: tuple[str, ...]
    """Those of the asked that the base does not know."""
    wordings: int
    """In how many those were asked."""
    asking_s: float
    """How long `train` will take to ask all of them."""
    relations_by_frames: tuple[str, ...]
    memory_gib: float
    """Weights, gradients, moments and the frozen base, reckoned."""
    peak_gib: float
    """Measured, activations of the dry steps and all: what torch had on the GPU, else what the process had resident."""
    free_gib: float
    """On the GPU, or of main memory, before anything was loaded."""
    on_gpu: bool
    look_s: float
    """A look at the canaries of the base."""
    stages: tuple[StageRehearsal, ...]
    neutral_left_out: str | None
    perturbed: tuple[str, ...]
    """What each perturb stage will change."""
    output_taken: bool

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def as_text(self) -> str:
        """For people."""
        lines = [f"base: {self.base}, {self.parameters / 1e6:.1f} M parameters"]
        if self.added_tokens:
            lines.append(f"tokens that are added: {' '.join(self.added_tokens)}")
        lines.append(self._facts_as_text())
        lines += [f"  not known: {fact}" for fact in self.facts_unknown[:_SHOWN]]
        if self.relations_by_frames:
            lines.append(f"relations with generic wording only: {', '.join(self.relations_by_frames)}")
        if self.neutral_left_out is not None:
            lines.append(self.neutral_left_out)
        lines.append(self._memory_as_text())
        lines += [
            f"{stage.stage}: {stage.step_s:.2f} s a step, about {stage.total_s / 60:.0f} min in all with its looks; "
            "first losses " + ", ".join(f"{name} {value:.3f}" for name, value in stage.losses.items())
            for stage in self.stages
        ]
        lines.append(f"a look takes {self.look_s:.1f} s; perturbing, checkpoints and waiting for batches come on top")
        lines += self.perturbed
        if self.output_taken:
            lines.append("the output folder holds a run already: train will refuse it")
        return "\n".join(lines)

    def _memory_as_text(self) -> str:
        where = "on the GPU" if self.on_gpu else "resident in this process, Python and its libraries included"
        return (
            f"memory: {self.peak_gib:.2f} GiB at the peak of the dry steps ({where}; {self.memory_gib:.2f} GiB are "
            f"weights, gradients, moments and the frozen base), {self.free_gib:.1f} GiB were free"
        )

    def _facts_as_text(self) -> str:
        unknown = len(self.facts_unknown)
        if not self.facts_asked:
            return f"facts: {self.facts}, known to the base or not (facts.known_only is off)"
        if self.facts_asked == self.facts:
            left_out = f"{unknown} not known in any of {self.wordings} wordings and left out"
            return f"facts: {self.facts - unknown} known to the base; {left_out}"
        share = 1 - unknown / self.facts_asked
        margin = 1.96 * math.sqrt(share * (1 - share) / self.facts_asked)
        return (
            f"facts: {self.facts}; of a sample of {self.facts_asked} the base knows {share:.1%} (give or take "
            f"{margin:.1%}); train asks all of them, which takes about {self.asking_s / 60:.0f} min, and leaves out "
            f"what is not known in any of {self.wordings} wordings"
        )


def rehearse(config: RunConfig) -> Rehearsal:
    """Prepare a run and take two dry steps of each stage; nothing is kept.

    Of very many facts, a sample is asked whether the base knows them; the dry steps take the others for known.

    Raises:
        TrainerError: each thing that is missing or does not fit.
    """
    free = _free_bytes(config)
    with tempfile.TemporaryDirectory() as draft:
        prepared = prepare(config, most_asked=_MOST_ASKED, draft=Path(draft))
        chosen = check_stages(config, prepared.teacher, prepared.streams, reads=True)
        look_s = _time_look(prepared)
        stages = _rehearse_stages(prepared, look_s)
    known, facts, worded = prepared.known, len(prepared.targets.facts), set(prepared.world.phrasings.relations)
    parameters = sum(weight.numel() for weight in prepared.base.model.parameters())
    return Rehearsal(
        base=prepared.base.name,
        parameters=parameters,
        added_tokens=prepared.base.added,
        facts=facts,
        facts_asked=known.asked,
        facts_unknown=tuple(f"{fact.relation} of {fact.subject}: {fact.value}" for fact in known.unknown),
        wordings=known.wordings,
        asking_s=known.asked_s / known.asked * facts if known.asked else 0.0,
        relations_by_frames=tuple(sorted({fact.relation for fact in known.facts} - worded)),
        memory_gib=_memory_bytes(parameters, config) / _GIB,
        peak_gib=_peak_bytes(prepared.machine.device) / _GIB,
        free_gib=free / _GIB,
        on_gpu=prepared.machine.device.type == "cuda",
        look_s=look_s,
        stages=stages,
        neutral_left_out=left_out(prepared.streams),
        perturbed=tuple(f"perturb {number}: {_said(found)}" for number, found in chosen.items()),
        output_taken=(config.output / RUN_FILE).exists(),
    )


def _said(chosen: Chosen) -> str:
    rows = f" and the rows of {len(chosen.rare)} tokens of names" if chosen.rare else ""
    return f"noise in {len(chosen.matrices)} matrices{rows}"


def _memory_bytes(parameters: int, config: RunConfig) -> int:
    """Weights, gradients, two moments and an average in float32 for what is trained; the frozen base beside it."""
    trained = 0.02 if config.base.lora else 1.0
    averaged = any(isinstance(stage, TrainingStage) and stage.average is not None for stage in config.stages)
    return int(parameters * 4 * (2 + (3 + averaged) * trained))


def _free_bytes(config: RunConfig) -> int:
    if config.compute.device != "cpu" and torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _time_look(prepared: Prepared) -> float:
    started = time.perf_counter()
    prepared.canaries.look(prepared.teacher, prepared.base, prepared.machine)
    return time.perf_counter() - started


def _rehearse_stages(prepared: Prepared, look_s: float) -> tuple[StageRehearsal, ...]:
    stages = [
        (n, stage)
        for n, stage in enumerate(prepared.config.stages)
        if isinstance(stage, MetabolizeStage | RegenerateStage)
    ]
    tried: dict[tuple[LossesConfig, bool], tuple[dict[str, float], float]] = {}
    found = []
    for number, stage in watched(stages, "dry steps", "stage"):
        work = (stage.losses, stage.average is None)
        if work not in tried:
            tried[work] = _dry_steps(prepared, stage, number)
        losses, step_s = tried[work]
        looks = (stage.steps - 1) // prepared.config.watch.every + 1
        found.append(StageRehearsal(f"{stage.kind} {number}", losses, step_s, step_s * stage.steps + look_s * looks))
    return tuple(found)


def _dry_steps(
    prepared: Prepared, stage: MetabolizeStage | RegenerateStage, number: int
) -> tuple[dict[str, float], float]:
    """The losses of the second dry step, and how long it took."""
    config, machine = prepared.config, prepared.machine
    reader = Reader(prepare_model(prepared.base.model, config)).to(machine.device).train()
    before = {name: weight.detach().to("cpu", copy=True) for name, weight in reader.state_dict().items()}
    objective = Metabolism(stage.losses, prepared.teacher, probes_of(prepared, stage, number))
    optimizer = make_optimizer(reader, stage, machine.device)
    average = Average.of(reader, stage.average)
    feed = Feed(prepared.streams, shares=machine.shares, of=machine.parts, workers=0)
    losses: dict[str, float] = {}
    elapsed_s = 0.0
    try:
        for step, batches in enumerate(feed.steps(objective.streams, 0, _DRY_STEPS)):
            started = time.perf_counter()
            losses, _, _ = take_step(reader, optimizer, objective, batches, machine, stage.clip, step)
            if average is not None:
                average.follow(step + 1)
            elapsed_s = time.perf_counter() - started
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            "a dry step ran out of memory: lower streams.*.documents or streams.*.row_tokens, raise "
            "compute.accumulation, or set compute.checkpoint_activations or compute.precision to bfloat16"
        ) from error
    finally:
        reader.load_state_dict(before)
    return losses, elapsed_s
