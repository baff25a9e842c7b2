"""One table of all methods by one command: same base, same streams, same loop, same exam, same small tuning budget.

The tuning uses an exam of its own seed and a score fixed beforehand: recall that is left plus skill that is lost. Every
trial is recorded; the best is examined by the whole gate, with the base and the control beside it. A finished row is
kept, and taken up again by the next comparison whose settings would make the same one.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from pydantic import ConfigDict
from transformers import PreTrainedModel

from trainer.baselines.comparison import (
    LABELS,
    STRINGS,
    CompareConfig,
    Comparison,
    Row,
    Trial,
    asked_for,
    for_strings,
)
from trainer.baselines.kept import joint_digest, kept_or_made, said
from trainer.baselines.life import Estate, live
from trainer.baselines.memorized import SequenceRow, VisionRow, compare_sequences, compare_vision
from trainer.baselines.method import Made, Method, Untouched, Value, Workshop, apply, changed, grid, worded
from trainer.baselines.rag import attack_rag
from trainer.config import MetabolizeStage, RunConfig, Strict
from trainer.errors import BaseModelError, NotFiniteError
from trainer.evaluate.behaviour import recall_direct, recall_forced
from trainer.evaluate.examinee import Examinee, digest, load_examinee
from trainer.evaluate.generate import TOOL_TAGS
from trainer.evaluate.outcome import Curve, Ledger, Outcomes, Role
from trainer.evaluate.page import write_page
from trainer.evaluate.profile import PROFILES, Profile
from trainer.evaluate.question import Exam, recall
from trainer.evaluate.reasoning import LOGIC, READING, answers, draw_tasks, grade
from trainer.evaluate.report import Report, write_report
from trainer.evaluate.run import Field as Models
from trainer.evaluate.run import Request, examine, read_exam, say, write_up
from trainer.fact import Source
from trainer.files import write_whole
from trainer.preparation import prepare
from trainer.streams.encoder import Encoder

RESULT, _ROW, _STRINGS, _LABELS, _KNOWN = "compare.json", "row.json", "strings.json", "labels.json", "known.json"
_TUNING_SEED = 1000
_TUNING_QUESTIONS = 60


class _Examined(Strict):
    """A ledger as data."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    outcomes: tuple[Outcomes, ...]
    curves: tuple[Curve, ...]
    not_tested: tuple[str, ...]

    @classmethod
    def of(cls, ledger: Ledger) -> "_Examined":
        return cls(
            outcomes=tuple(ledger.outcomes.values()), curves=tuple(ledger.curves), not_tested=tuple(ledger.not_tested)
        )

    def ledger(self) -> Ledger:
        outcomes = {(one.measure, one.role): one for one in self.outcomes}
        return Ledger(outcomes, list(self.curves), list(self.not_tested))


@dataclass(frozen=True)
class _Bench:
    """What every method is tried and examined with."""

    config: CompareConfig
    shop: Workshop
    run: RunConfig
    encoder: Encoder
    exam: Exam
    sources: tuple[Source, ...]
    base: Examinee
    control: Examinee | None
    profile: Profile

    @cached_property
    def known(self) -> Ledger:
        """What the exam finds of the base, as if it were the core, and of the control; kept as a row is."""

        def ask() -> _Examined:
            models = _models(self, self.shop.base)
            return _Examined.of(examine(self.exam, models, self.profile, attacks=self.config.attacks))

        return kept_or_made(_Examined, self.config.output / _KNOWN, joint_digest(self.made_of), ask).ledger()

    @cached_property
    def tuning(self) -> Exam:
        """What decides between settings."""
        return replace(self.exam, seed=self.exam.seed + _TUNING_SEED)

    @cached_property
    def skills(self) -> tuple[float, ...]:
        """The share that the base has right of each of the tuning exam's skills."""
        return _skills(self, self.base)

    @cached_property
    def made_of(self) -> str:
        """What every row depends on: the settings, and the weights of base and control."""
        shared = said(self.config, exclude={"output", "methods", "life", "sequences", "vision"})
        models = (self.base, *(() if self.control is None else (self.control,)))
        return "/".join((shared, *(digest(one.model) for one in models)))


def compare(config: CompareConfig, only: Sequence[str] = ()) -> Comparison:
    """Try, choose and examine every method, and the other tables; or `only` some, by a method's name or a table's.

    Each row's report is written as it comes. Alone, the strings ask for the rows of those methods that are shown at the
    setting that their search chose, not for those of an edit.

    Raises:
        TrainerError: the base, the control or the facts cannot be used, or `only` names what is not there.
    """
    chosen = asked_for(config, only)
    bench = _set_up(config)
    settings = [_settings(bench, method) for method in chosen]
    rows: list[Row] = []
    if bench.control is not None and chosen:
        rows.append(_kept_row(bench, "control", "", partial(_control_row, bench)))
    for method, setting in zip(chosen, settings, strict=True):
        rows.append(_kept_row(bench, method.name, setting, partial(_row, bench, method)))
        _write(Comparison(rows=tuple(rows), trials=config.trials), config)
    sequences = _strings(bench, rows) if not only or STRINGS in only else ()
    vision = _labels(config) if not only or LABELS in only else ()
    comparison = Comparison(rows=tuple(rows), sequences=sequences, vision=vision, trials=config.trials)
    _write(comparison, config)
    return comparison


def _settings(bench: _Bench, method: Method) -> str:
    """What the row of a method depends on, beside what every row does; a made core that cannot be used is refused."""
    life = bench.config.life
    lives = said(life) if life is not None and life.method == method.name else ""
    made = digest(_load_made(bench, method)) if isinstance(method, Made) else ""
    return said(method) + lives + made


def _load_made(bench: _Bench, method: Made) -> PreTrainedModel:
    core = load_examinee(method.model, Role.CORE, str(bench.shop.machine.device.type))
    if core.tokenizer.get_vocab() != bench.base.tokenizer.get_vocab():
        raise BaseModelError(
            f"{method.name}: {method.model} has other tokens than the base {bench.base.name}, so it was not made from "
            "it; compare it beside its own base"
        )
    return core.model


def _kept_row(bench: _Bench, name: str, settings: str, make: Callable[[], Row]) -> Row:
    """The row that an earlier comparison made of the same things, or a new one, with its report."""
    folder = bench.config.output / name

    def reported() -> Row:
        row = make()
        write_report(row.report, folder)
        write_page(row.report, folder)
        return row

    return kept_or_made(Row, folder / _ROW, joint_digest(bench.made_of, settings), reported)


def _strings(bench: _Bench, rows: Sequence[Row]) -> tuple[SequenceRow, ...]:
    """The table of memorized strings."""
    config = bench.config.sequences
    if config is None:
        return ()
    methods = for_strings(bench.config, config, rows)
    made_of = joint_digest(bench.made_of, said(config), *map(said, methods))
    make = partial(compare_sequences, config, methods, bench.shop, bench.exam, bench.base, bench.profile, say)
    return kept_or_made(tuple[SequenceRow, ...], bench.config.output / _STRINGS, made_of, make)


def _labels(config: CompareConfig) -> tuple[VisionRow, ...]:
    """The table of wrong labels."""
    vision = config.vision
    if vision is None:
        return ()

    def make() -> tuple[VisionRow, ...]:
        say("wrong labels")
        return compare_vision(vision)

    return kept_or_made(tuple[VisionRow, ...], config.output / _LABELS, joint_digest(said(vision)), make)


def _write(comparison: Comparison, config: CompareConfig) -> None:
    """What is known so far; a comparison that is stopped keeps its finished rows."""
    write_whole(config.output / RESULT, comparison.model_dump_json(indent=1) + "\n")


def _set_up(config: CompareConfig) -> _Bench:
    run = RunConfig(
        output=config.output / "work", base=config.base, facts=config.facts, streams=config.streams,
        compute=config.compute, stages=(MetabolizeStage(kind="metabolize", steps=1),),
    )  # fmt: skip
    prepared = prepare(run)
    machine = prepared.machine
    torch.nn.Module.to(prepared.base.model, machine.device)
    shop = Workshop(prepared.base.model, prepared.teacher, prepared.streams, machine, run.seed)
    request = Request(
        Path(config.base.model), config.base.model, config.facts.files, PROFILES[config.profile], config.control,
        config.kept, config.facts.phrasings, config.facts.held_out, config.streams.names, config.seed,
    )  # fmt: skip
    exam, sources = read_exam(request)
    known = {fact.key for fact in prepared.known.facts}
    exam = replace(exam, facts=tuple(fact for fact in exam.facts if fact.key in known))
    base = Examinee(Role.BASE, prepared.base.name, prepared.base.model, prepared.base.tokenizer)
    device = str(machine.device.type)
    control = load_examinee(config.control, Role.CONTROL, device) if config.control else None
    return _Bench(config, shop, run, prepared.base.encoder, exam, sources, base, control, request.profile)


def _models(bench: _Bench, model: PreTrainedModel, name: str = "base") -> Models:
    core = Examinee(Role.CORE, name, model, bench.base.tokenizer)
    return Models(core, bench.base, bench.control)


def _row(bench: _Bench, method: Method) -> Row:
    started = time.monotonic()
    trials, best, setting = _search(bench, method)
    models = _models(bench, best, method.name)
    if isinstance(method, Untouched):
        ledger = copy.deepcopy(bench.known)
        if method.kind == "rag":
            attack_rag(bench.exam, models.core, ledger, bench.profile, say)
    else:
        ledger = examine(bench.exam, models, bench.profile, bench.known, attacks=bench.config.attacks)
    life = bench.config.life
    if life is not None and life.method == method.name and not isinstance(method, Made):
        estate = Estate(bench.shop, bench.run, bench.encoder, bench.exam, bench.base, bench.control, bench.profile)
        live(estate, changed(method, setting), best, life.sizes, ledger, say)
    report = _report(bench, models, ledger, time.monotonic() - started)
    return Row(
        name=method.name, title=method.title, trials=trials, chosen=setting, budget=method.trials, report=report
    )  # fmt: skip


def _control_row(bench: _Bench) -> Row:
    """The control as if it were the core: what an ideal method would look like, judged by the same gate."""
    assert bench.control is not None, "only a control has a row"
    ledger = copy.deepcopy(bench.known)
    for (measure, role), outcomes in list(ledger.outcomes.items()):
        if role is Role.CONTROL:
            ledger.outcomes[measure, Role.CORE] = replace(outcomes, role=Role.CORE)
    core = replace(bench.control, role=Role.CORE)
    report = _report(bench, Models(core, bench.base, bench.control), ledger, 0.0)
    return Row(name="control", title="Never-knew control", trials=(), chosen={}, report=report)


def _report(bench: _Bench, models: Models, ledger: Ledger, duration_s: float) -> Report:
    return write_up(bench.exam, models, ledger, bench.profile, bench.sources, duration_s, bench.config.attacks)


def _search(bench: _Bench, method: Method) -> tuple[tuple[Trial, ...], PreTrainedModel, dict[str, Value]]:
    """Try the settings; the best model, and all trials."""
    if isinstance(method, Untouched):
        return (), bench.shop.base, {}
    if isinstance(method, Made):
        return (), _load_made(bench, method), {}
    found: list[tuple[float, PreTrainedModel, dict[str, Value]]] = []
    trials = []
    settings = grid(method, bench.config.trials)
    for place, (setting, candidate) in enumerate(settings, 1):
        say(f"{method.name}: setting {place} of {len(settings)} {worded(setting)}")
        started = time.monotonic()
        try:
            model = apply(candidate, bench.shop)
        except NotFiniteError:
            trials.append(Trial(setting=setting, recall_left=None, skill_lost=None, seconds=time.monotonic() - started))
            continue
        left, lost = _tuning_score(bench, model)
        elapsed_s = round(time.monotonic() - started, 1)
        trials.append(Trial(setting=setting, recall_left=left, skill_lost=lost, seconds=elapsed_s))
        found.append((left + lost, model, setting))
    if not found:
        raise NotFiniteError(f"every setting of {method.name} diverged; lower its learning rates")
    _, model, setting = min(found, key=lambda one: one[0])
    return tuple(trials), model, setting


def _tuning_score(bench: _Bench, model: PreTrainedModel) -> tuple[float, float]:
    core = Examinee(Role.CORE, "trial", model, bench.base.tokenizer)
    items, batch = recall(bench.tuning, bench.tuning.sample(_TUNING_QUESTIONS)), bench.profile.batch
    left = max(_mean(recall_forced(core, items, batch)), _mean(recall_direct(core, items, batch)))
    lost = [max(0.0, before - now) for before, now in zip(bench.skills, _skills(bench, core), strict=True)]
    return left, _mean(lost)


def _skills(bench: _Bench, one: Examinee) -> tuple[float, ...]:
    shares = []
    for kinds in (LOGIC, READING):
        tasks = draw_tasks(bench.tuning, kinds, _TUNING_QUESTIONS)
        shares.append(_mean(grade(tasks, answers(one, tasks, TOOL_TAGS, bench.profile.batch))))
    return tuple(shares)


def _mean(items: Sequence[float]) -> float:
    return sum(items) / len(items)
