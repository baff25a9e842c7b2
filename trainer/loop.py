"""The loop: steps of an optimizer over an objective, with checkpoints, looks and a way to stop.

There is one. What a method is stands in its objective and its stages; what a run is stands in `run.py`.
"""

import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import torch
from torch import nn

from trainer.average import Average
from trainer.checkpoint import Cursor
from trainer.config import TrainingStage
from trainer.errors import NotFiniteError, OutOfMemoryError
from trainer.machine import Machine
from trainer.objective import Metabolism, Objective, passes_of
from trainer.reader import to_places
from trainer.streams.batch import Batch
from trainer.streams.feed import Feed

_FUSED_ON = "cuda"
_ECHO_S = 5.0


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did: losses, norm, probes and tokens over all processes, the times this one's own."""

    losses: Mapping[str, float]
    norm: float
    learning_rate: float
    probe_accuracy: float | None
    tokens: int
    elapsed_s: float
    waited_s: float


class Watcher(Protocol):
    """Is told of every step."""

    def after_step(self, cursor: Cursor, report: StepReport) -> None:
        """`cursor` points to the next step. May raise to end the run."""


class Stop(Exception):
    """The user asked to stop, and the step or stage is complete."""


@dataclass
class Interrupt:
    """Turns Ctrl-C into a wish that the loop grants between two steps; a second one means now.

    Use as a context manager. With several `processes`, a second one that follows at once is an echo: their launcher
    passes on what the terminal has already sent them.
    """

    processes: int = 1
    wished: bool = False
    _wished_at_s: float = 0.0
    _before: Any = field(default=None, repr=False)

    def __enter__(self) -> "Interrupt":
        try:
            self._before = signal.signal(signal.SIGINT, self._wish)
        except ValueError:  # not the main thread: whoever started it decides
            self._before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _wish(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        now_s = time.monotonic()
        if not self.wished:
            self.wished, self._wished_at_s = True, now_s
        elif self.processes == 1 or now_s - self._wished_at_s > _ECHO_S:
            raise KeyboardInterrupt


def make_optimizer(model: nn.Module, stage: TrainingStage, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over what is not frozen; only matrices decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=stage.learning_rate,
        betas=(0.9, 0.98),
        fused=device.type == _FUSED_ON,
    )


def learning_rate(stage: TrainingStage, step: int) -> float:
    """Rises in a straight line, falls as a cosine to its final share."""
    rise = min(1.0, (step + 1) / max(stage.warmup_steps, 1))
    fall = 0.5 + 0.5 * math.cos(math.pi * step / stage.steps)
    return stage.learning_rate * rise * (stage.final_share + (1 - stage.final_share) * fall)


def run_stage(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    stage: TrainingStage,
    feed: Feed,
    machine: Machine,
    watcher: Watcher,
    start: Cursor,
    interrupt: Callable[[], bool],
    average: Average | None = None,
) -> Cursor:
    """Take the steps of a stage from where `start` points; give back the cursor at its end.

    With an `average`, that is what the model's weights are at the end.

    Raises:
        Stop: `interrupt` said so; the step is complete and the watcher was told.
        NotFiniteError: a loss or the gradient is not finite; the weights are those before the step.
        OutOfMemoryError: the device's memory is spent.
    """
    model.train()
    cursor = start
    first_batch = start.total - start.step
    for batches in feed.steps(objective.streams, start.total, first_batch + stage.steps):
        started, waited = time.perf_counter(), feed.waited_s
        rate = learning_rate(stage, cursor.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        try:
            losses, norm, accuracy = take_step(model, optimizer, objective, batches, machine, stage.clip, cursor.step)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise OutOfMemoryError(
                    "out of memory: raise compute.accumulation, set compute.checkpoint_activations or "
                    "compute.precision to bfloat16, or lower the streams' documents or row_tokens"
                ) from error
            raise
        cursor = Cursor(cursor.stage, cursor.step + 1, cursor.total + 1)
        if average is not None:
            average.follow(cursor.step)
        tokens = sum(part.tokens for name in objective.streams for part in batches[name])
        report = StepReport(
            losses, norm, rate, accuracy,
            tokens=round(machine.total({"tokens": tokens})["tokens"]),
            elapsed_s=time.perf_counter() - started, waited_s=feed.waited_s - waited,
        )  # fmt: skip
        watcher.after_step(cursor, report)
        if interrupt():
            raise Stop
    if average is not None:
        average.put()
    return cursor


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    batches: Mapping[str, tuple[Batch, ...]],
    machine: Machine,
    clip: float,
    step: int,
) -> tuple[dict[str, float], float, float | None]:
    """One step: every part, every stream; then the weights, then the probes.

    The losses come back as means over all places of all processes, with the norm of the gradient and the probes' share
    of right guesses.
    """
    parts = len(next(iter(batches.values())))
    per_part = [{name: batches[name][part] for name in batches} for part in range(parts)]
    counts: dict[str, float] = {}
    for part in per_part:
        for name, count in objective.count(part).items():
            counts[name] = counts.get(name, 0.0) + count
    counts = machine.total(counts)
    sums: dict[str, float] = {}
    passes = passes_of(objective)
    optimizer.zero_grad(set_to_none=True)
    for number, part in enumerate(per_part):
        places = {name: to_places(batch, machine.device) for name, batch in part.items()}
        for stream in passes:
            is_last = number == parts - 1 and stream == passes[-1]
            with machine.computing(model, shares_gradients=is_last):
                terms = objective.compute(model, stream, places, counts, step)
                total = torch.stack([term.weight * term.loss.sum / max(counts[term.name], 1.0) for term in terms]).sum()
            (total * machine.processes).backward()  # type: ignore[no-untyped-call]
            for term in terms:
                sums[term.name] = sums.get(term.name, 0.0) + float(term.loss.sum.detach())
    sums = machine.total(sums)
    losses = {name: value / max(counts[name], 1.0) for name, value in sums.items()}
    norm = float(machine.clip(model, clip))
    _refuse_not_finite(losses, norm)
    optimizer.step()
    accuracy = train_probes(objective, machine, counts, step) if isinstance(objective, Metabolism) else None
    return losses, norm, accuracy


def _refuse_not_finite(losses: Mapping[str, float], norm: float) -> None:
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad or not math.isfinite(norm):
        what = f"the loss {', '.join(bad)}" if bad else "the norm of the gradient"
        raise NotFiniteError(
            f"{what} is not finite; the weights were not changed by this step: lower learning_rate, or set "
            "compute.precision to float32"
        )


def train_probes(objective: Metabolism, machine: Machine, counts: Mapping[str, float], step: int) -> float | None:
    """Let the probes follow the model: their own steps on the hidden states of this step."""
    probes, config, pending = objective.probes, objective.losses.reversal, objective.pending
    if probes is None or config is None or not pending:
        return None
    objective.pending = []
    probes.reinitialise(step, config.reinitialise_every)
    hits = 0.0
    for round_number in range(config.probe_steps):
        probes.optimizer.zero_grad(set_to_none=True)
        for hidden, classes_M in pending:
            loss_sum, hit_sum = probes.probe_sum(hidden, classes_M)
            (loss_sum / max(counts["reversal"], 1.0)).backward()  # type: ignore[no-untyped-call]
            hits += float(hit_sum) if round_number == 0 else 0.0
        machine.share_gradients(probes)
        probes.optimizer.step()
    return machine.total({"hits": hits})["hits"] / max(counts["reversal"], 1.0)
