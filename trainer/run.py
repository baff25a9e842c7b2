"""A run from its config to its core: takes the stages, looks, saves, and can be taken up again.

The composition of the package: the only place where the model, the streams, the loop and the folder meet.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.adapter import merge_adapters, prepare_model
from trainer.artifact import (
    BaseRecord,
    CoreRecord,
    TargetsRecord,
    now,
    versions,
    write_core,
)
from trainer.average import Average, mean_weights
from trainer.canary import Canaries
from trainer.checkpoint import (
    KEPT,
    Checkpoint,
    Cursor,
    last_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_weights,
    random_state,
    restore_random_state,
    save_checkpoint,
    save_weights,
    step_of,
)
from trainer.config import (
    AverageStage,
    MetabolizeStage,
    PerturbStage,
    RegenerateStage,
    RunConfig,
    TrainingStage,
    averaged_stages,
)
from trainer.errors import (
    CheckpointError,
    CollapseError,
    FeedError,
    NotFiniteError,
    OutOfMemoryError,
    RunExistsError,
)
from trainer.fact import Target
from trainer.figure import draw_figures, keep_figure
from trainer.files import write_whole, writing
from trainer.inquiry import Known
from trainer.logbook import Logbook, last_look
from trainer.loop import Interrupt, StepReport, Stop, make_optimizer, run_stage
from trainer.losses.reversal import warm_up
from trainer.objective import Metabolism
from trainer.perturb import perturb
from trainer.preparation import Prepared, prepare, probes_of
from trainer.reader import Reader, read_stream
from trainer.sources import left_out
from trainer.streams.fact import spelled_in
from trainer.streams.feed import Feed
from trainer.watchdog import Watchdog

if TYPE_CHECKING:
    import torch
    from torch import nn

RUN_FILE = "run.json"
TARGETS_FILE = "targets.json"
CHECKPOINTS = "checkpoints"
ENDS = "ends"
CORE = "core"


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended. `core` is None where it was stopped.

    Then `checkpoint` is where `metabolism resume` goes on, None for the beginning; `again` is how many steps it will
    take once more.
    """

    core: Path | None
    checkpoint: Path | None
    canaries: Canaries | None
    history: tuple[dict[str, float | str | None], ...]
    again: int = 0


def start_run(config: RunConfig) -> Finished:
    """Take a new run to its end.

    Raises:
        RunExistsError: the output folder holds a run; nothing was changed.
        TrainerError: what went wrong and what to do; the checkpoints stay.
    """
    if (config.output / RUN_FILE).exists():
        raise RunExistsError(
            f"{config.output} holds a run and was left as it is; go on with it by `metabolism resume {config.output}`, "
            "or choose another output"
        )
    prepared = prepare(config)
    with writing(config.output, lambda: _way_on(config.output), CheckpointError):
        if prepared.machine.is_main:
            _write_run(prepared)
        prepared.machine.wait()
        return _Run(prepared).go()


def resume_run(folder: Path, *, step: int | None = None) -> Finished:
    """Take up a run from its last checkpoint, or from that of `step`, as if it had never stopped.

    Raises:
        RunExistsError: the run is finished.
        CheckpointError: the folder holds no run, or the checkpoint is not there or damaged.
    """
    try:
        config = RunConfig.model_validate_json((folder / RUN_FILE).read_bytes()).model_copy(update={"output": folder})
        content = json.loads((folder / TARGETS_FILE).read_bytes())
    except OSError as error:
        raise CheckpointError(f"{folder} holds no run; start one by `metabolism train RUN.yaml`") from error
    if (folder / CORE).exists():
        raise RunExistsError(f"the run in {folder} is finished; its core is in {folder / CORE}")
    facts, unknown = (tuple(Target(**row) for row in content[name]) for name in ("known", "unknown"))
    known = Known(facts, unknown, wordings=content.get("wordings", 0))
    places = list_checkpoints(folder / CHECKPOINTS)
    if step is not None:
        places = [place for place in places if step_of(place) == step]
    if not places and step is not None:
        raise CheckpointError(f"{folder} has no checkpoint of step {step}")
    prepared = prepare(config, known)
    with writing(folder, lambda: _way_on(folder), CheckpointError):
        return _Run(prepared, load_checkpoint(places[-1]) if places else None).go()


def _way_on(folder: Path) -> str:
    again = f"go on by `metabolism resume {folder}`" if (folder / RUN_FILE).exists() else "start the run again"
    return f"{again}; {KEPT}"


def _write_run(prepared: Prepared) -> None:
    folder = prepared.config.output
    known = prepared.known
    asked = {
        "known": [asdict(fact) for fact in known.facts],
        "unknown": [asdict(fact) for fact in known.unknown],
        "wordings": known.wordings,
    }
    write_whole(folder / TARGETS_FILE, json.dumps(asked))
    write_whole(folder / RUN_FILE, prepared.config.model_dump_json(indent=2))  # last: where it stands, it is resumed


class _Run:
    """A run that goes on: what changes."""

    def __init__(self, prepared: Prepared, checkpoint: Checkpoint | None = None) -> None:
        self.at, self.config, self.machine = prepared, prepared.config, prepared.machine
        self.cursor = checkpoint.manifest.cursor if checkpoint else Cursor()
        self._restore = checkpoint
        self.reader = Reader(prepare_model(prepared.base.model, prepared.config))
        self.model: nn.Module = self.machine.wrap(self.reader)
        self.optimizer: torch.optim.Optimizer | None = None
        self.objective: Metabolism | None = None
        self.average: Average | None = None
        self.dog = Watchdog(self.config.watch, Canaries(1, 1, 0))
        done = checkpoint.manifest.history if checkpoint else ()
        self.last = last_look(done)
        steps = sum(stage.steps for stage in self.config.stages if isinstance(stage, TrainingStage))
        self.book = Logbook(
            self.config.output, steps=steps, done=self.cursor.total, history=done, writes=self.machine.is_main
        )

    def go(self) -> Finished:
        """Take the stages that are left, and write the core."""
        try:
            if self._work():
                return self._finish()
        except KeyboardInterrupt:  # at once, so whatever is half done is not to be kept
            pass
        except (CollapseError, NotFiniteError, OutOfMemoryError, FeedError) as error:
            folder = self.config.output
            raise type(error)(
                f"{error}. Last checkpoint: {self.saved or 'none, so it will begin anew'}. `metabolism resume "
                f"{folder}` goes on from there (--from STEP: an earlier one) with the settings in {folder / RUN_FILE}; "
                "change there compute, streams, a stage's learning_rate or the weights of its losses"
            ) from error
        return self._stopped()

    @property
    def saved(self) -> Path | None:
        """The checkpoint that `metabolism resume` goes on from."""
        return last_checkpoint(self.config.output / CHECKPOINTS)

    def _stopped(self) -> Finished:
        core, saved = self.config.output / CORE, self.saved
        again = max(self.cursor.total - step_of(saved), 0) if saved else self.cursor.total
        return Finished(core if core.exists() else None, saved, self.last, tuple(self.book.history), again)

    def _work(self) -> bool:
        """Take the stages that are left; False where the user stopped them, and the state is saved."""
        feed = Feed(
            self.at.streams, shares=self.machine.shares, of=self.machine.parts,
            workers=self.config.streams.workers, prefetch=self.config.streams.prefetch,
        )  # fmt: skip
        with self.book, feed, Interrupt(self.machine.processes) as interrupt:
            for line in self._notes():
                self.book.say(line)
            self._look_at_base()
            try:
                for number in range(self.cursor.stage, len(self.config.stages)):
                    self._take(number, feed, interrupt)
            except Stop:
                self._save()
                return False
            except FeedError:
                if self.cursor.step and self.machine.processes == 1:  # others would wait for one that is ending
                    self._save()
                raise
            finally:
                self.book.write()
        return True

    def _notes(self) -> Iterator[str]:
        """What a user should know of what was left out."""
        known = self.at.known
        if known.wordings:
            count = f"{len(known.unknown)} of {len(known.facts) + len(known.unknown)} facts are left out"
            listed = self.config.output / TARGETS_FILE
            yield f"{count}, as the base knows them in none of {known.wordings} wordings; listed in {listed}"
        if (text := left_out(self.at.streams)) is not None:
            yield text

    def _look_at_base(self) -> None:
        looked = self.at.canaries.look(self.at.teacher, self.at.base, self.machine)
        self.dog = Watchdog(self.config.watch, looked)
        if self.cursor.total == 0 and self.cursor.stage == 0:
            self.book.look(self.cursor, "base", looked)

    def _take(self, number: int, feed: Feed, interrupt: Interrupt) -> None:
        stage = self.config.stages[number]
        if isinstance(stage, PerturbStage):
            self._restore_weights()
            perturb(
                self.bare, stage, seed=self.config.seed + number, preserve=self.config.base.preserve,
                text=read_stream(self.at.streams["logic"], self.machine.device), spelled=spelled_in(self.at.streams),
            )  # fmt: skip
        elif isinstance(stage, AverageStage):
            self._restore_weights()
            mean = mean_weights(load_weights(self._end(averaged)) for averaged in stage.of)
            self.machine.restore_weights(self.model, mean)
        else:
            self._begin(stage, number)
            assert self.optimizer is not None, "made when a stage begins"
            assert self.objective is not None, "made when a stage begins"
            self.cursor = run_stage(
                self.model, self.optimizer, self.objective, stage, feed, self.machine, self, self.cursor,
                lambda: self.machine.any(interrupt.wished), self.average,
            )  # fmt: skip
        if number in averaged_stages(self.config.stages):
            self._keep_end(number)
        self._look(f"{stage.kind} {number}")
        self.cursor = Cursor(number + 1, 0, self.cursor.total)
        self.optimizer = self.objective = self.average = None
        if self.machine.any(interrupt.wished):
            raise Stop
        if isinstance(stage, TrainingStage) or self.cursor.stage == len(self.config.stages):
            self._save()

    def _end(self, number: int) -> Path:
        return self.config.output / ENDS / f"stage-{number}.safetensors"

    def _keep_end(self, number: int) -> None:
        weights = self.machine.weights(self.model)
        if self.machine.is_main:
            save_weights(self._end(number), weights)
        self.machine.wait()

    @property
    def bare(self) -> Any:
        """The model itself, as transformers knows it."""
        reader = self.machine.unwrap(self.model)
        assert isinstance(reader, Reader), "the reader is what was wrapped"
        return reader.model

    def _begin(self, stage: TrainingStage, number: int) -> None:
        assert isinstance(stage, MetabolizeStage | RegenerateStage), "no other stage takes steps"
        if not self.cursor.step:  # what begins must find what the stages before it left
            self._restore_weights()
        self.objective = Metabolism(stage.losses, self.at.teacher, probes_of(self.at, stage, number))
        self.optimizer = make_optimizer(self.model, stage, self.machine.device)
        self.average = Average.of(self.machine.unwrap(self.model), stage.average)
        self._restore_weights()

    def _restore_weights(self) -> None:
        """Put the state of the checkpoint in place, once; the optimizer's only inside a stage."""
        checkpoint, self._restore = self._restore, None
        if checkpoint is None:
            return
        tensors = checkpoint.tensors
        if self.optimizer is not None:
            self.machine.restore(self.model, self.optimizer, tensors["weights"], tensors["moments"])
        else:
            self.machine.restore_weights(self.model, tensors["weights"])
        probes = self.objective.probes if self.objective is not None else None
        if probes is not None and "probes" in tensors:
            probes.load_state_dict(tensors["probes"])
            probes.optimizer.load_state_dict(tensors["probe_moments"])
        if self.average is not None:
            self.average.restore(tensors["average"])
        self.dog.fallen = int(tensors["fallen"])
        restore_random_state(tensors["random"])

    def after_step(self, cursor: Cursor, report: StepReport) -> None:
        """See `trainer.loop.Watcher`."""
        self.cursor = cursor
        stage = self.config.stages[cursor.stage]
        assert isinstance(stage, MetabolizeStage | RegenerateStage), "no other stage takes steps"
        reversal = stage.losses.reversal
        strength = reversal.weight * warm_up(cursor.step - 1, reversal.warmup_steps) if reversal else 0.0
        self.book.step(cursor, f"{stage.kind} {cursor.stage}", strength, report)
        last = cursor.step == stage.steps
        if cursor.step % self.config.watch.every == 0 and not last:
            grace = isinstance(stage, RegenerateStage) and cursor.step <= self.config.watch.grace_steps
            self._look(f"{stage.kind} {cursor.stage}", grace=grace)
        if cursor.total % self.config.save.every == 0 and not last:
            self._save()

    def _look(self, stage: str, *, grace: bool = True) -> None:
        with self.machine.whole(self.model):
            self.last = self.at.canaries.look(Reader(self.bare), self.at.base, self.machine)
        self.book.look(self.cursor, stage, self.last)
        self.dog.look(self.last, grace=grace)

    def _save(self) -> None:
        """Save all that the next step needs; between stages that is the weights."""
        tensors: dict[str, Any] = {"random": random_state(), "fallen": self.dog.fallen}
        if self.optimizer is None:
            tensors["weights"] = self.machine.weights(self.model)
        else:
            tensors["weights"], tensors["moments"] = self.machine.state(self.model, self.optimizer)
        probes = self.objective.probes if self.objective is not None else None
        if probes is not None:
            tensors["probes"], tensors["probe_moments"] = probes.state_dict(), probes.optimizer.state_dict()
        if self.average is not None:
            tensors["average"] = self.average.state()
        if self.machine.is_main:
            folder = self.config.output / CHECKPOINTS
            save_checkpoint(folder, self.cursor, tensors, tuple(self.book.history), keep=self.config.save.keep)
        self.machine.wait()

    def _finish(self) -> Finished:
        core = self.config.output / CORE
        self._restore_weights()
        whole = self._whole()
        if self.machine.is_main:
            figures = self.config.output / "figures"
            draw_figures(self.book.history, figures)
            write_core(core, whole, self.at.base.tokenizer, self._record())
            keep_figure(figures, core)
        self.machine.wait()
        return Finished(core, self.saved, self.last, tuple(self.book.history))

    def _whole(self) -> Any:
        """The finished model: adapters melted in, cut weights put together."""
        if self.config.base.lora is not None:
            return merge_adapters(self.bare)
        if not self.config.compute.shard:
            return self.bare
        weights = self.machine.weights(self.model)
        whole = type(self.bare)(self.bare.config)
        whole.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()}, strict=False)
        return whole

    def _record(self) -> CoreRecord:
        base, known = self.at.base, self.at.known
        return CoreRecord(
            name=self.config.name,
            created=now(),
            base=BaseRecord(name=base.name, digest=base.digest, added_tokens=base.added),
            data=self.at.inputs,
            targets=TargetsRecord(taken_out=len(known.facts), not_known=len(known.unknown), wordings=known.wordings),
            config=self.config.model_dump(mode="json"),
            versions=versions(),
            training={"steps": self.cursor.total, "canaries": asdict(self.last) if self.last else None},
            made_of=self.at.made_of,
        )
