"""One evaluation from its models and facts to its report: the only place where the attacks meet.

A plan is a list of steps, each one attack on one model, so that a progress bar can tell how far it is.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Never

import torch
from tqdm import tqdm

from knowledge_store.protocol import PROTOCOL_VERSION
from trainer.artifact import versions
from trainer.evaluate.behaviour import attack_behaviour
from trainer.evaluate.examinee import Examinee, digest, load_examinee
from trainer.evaluate.gate import judge, passes
from trainer.evaluate.harness import attack_tasks
from trainer.evaluate.inside import attack_lens, attack_names, attack_probes, probe_tasks, unprobed
from trainer.evaluate.outcome import Ledger, Role
from trainer.evaluate.profile import Profile
from trainer.evaluate.question import Exam
from trainer.evaluate.reasoning import attack_reasoning
from trainer.evaluate.recovery import attack_memory
from trainer.evaluate.relearning import attack_relearning, relearnings
from trainer.evaluate.report import FactsUsed, Report, Subject, figures_of, judgement_of, line_of, now
from trainer.evaluate.tampering import attack_weights
from trainer.evaluate.wording import untested
from trainer.evaluate.workers import side_by_side
from trainer.fact import Source, read_targets
from trainer.world.lexicon import Lexicon
from trainer.world.phrasing import read_phrasings
from trainer.world.world import World

Tick = Callable[[str], None]
ATTACKS = "ABCDE"
_LONGEST_FIRST = (
    "C.relearn_few", "C.relearn ", "C.relearn_fast", "D ", "C.relearn_lora", "E ", "A ", "C.relearn_ten", "B probes",
    "C.unrelated", "C weights", "B ",
)  # fmt: skip
"""How the names of the steps begin, by what these take: short ones come last, that all workers end together."""
_WORTHWHILE = (5_000_000, 200_000_000)
"""Between these many weights several workers are faster than one."""
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What to evaluate. `names` bounds the invented names, for a base whose world has few of them."""

    core: Path
    base: str
    facts: tuple[Path, ...]
    profile: Profile
    control: str | None = None
    kept: tuple[Path, ...] = ()
    phrasings: tuple[Path, ...] = ()
    held_out: float = 0.2
    names: int = 0
    seed: int = 11
    device: str = "cpu"
    attacks: str = ATTACKS
    tasks: tuple[str, ...] = ()
    workers: int = 1
    """How many processes attack side by side; 0 decides by the device and the size of the core.

    More than one needs a main module that can be imported, as Python's `forkserver` and `spawn` do.
    """


@dataclass(frozen=True, slots=True)
class Field:
    """The models of an evaluation."""

    core: Examinee
    base: Examinee
    control: Examinee | None

    @property
    def all(self) -> tuple[Examinee, ...]:
        """Every model, the core first."""
        return tuple(one for one in (self.core, self.base, self.control) if one is not None)


@dataclass(frozen=True, slots=True)
class Step:
    """One attack on one model."""

    name: str
    role: Role
    go: Callable[[Tick], None]


def evaluate(request: Request) -> Report:
    """Load everything, attack, judge.

    Raises:
        TrainerError: facts or models that cannot be used, each with what to do.
    """
    started = time.monotonic()
    exam, sources = read_exam(request)
    field = read_field(request)
    workers = request.workers or _fitting(field.core)
    if workers > 1:
        ledger = _examine_apart(exam, field, request, workers)
    else:
        ledger = examine(exam, field, request.profile, attacks=request.attacks)
    if request.tasks:
        for one, source in ((field.core, str(request.core)), (field.base, request.base)):
            attack_tasks(one, source, request.tasks, ledger, limit=request.profile.skill_questions, batch=8)
    elapsed_s = time.monotonic() - started
    return write_up(exam, field, ledger, request.profile, sources, elapsed_s, request.attacks)


def read_exam(request: Request) -> tuple[Exam, tuple[Source, ...]]:
    """The exam that a request asks for, and the files that its facts came from."""
    targets = read_targets(request.facts)
    kept = read_targets(request.kept).facts if request.kept else ()
    removed = {fact.key for fact in targets.facts}
    kept = tuple(fact for fact in kept if fact.key not in removed)
    phrasings = read_phrasings(request.phrasings, held_out=request.held_out)
    own = tuple(dict.fromkeys(fact.relation for fact in targets.facts))
    lexicon = Lexicon(pool=request.names, extra_relations=own)
    world = World((*targets.facts, *kept), phrasings, lexicon, real_share=0.15, true_share=0.0)
    return Exam(world, targets.facts, kept, request.seed), targets.sources


def read_field(request: Request) -> Field:
    """The models that a request names."""
    return Field(
        load_examinee(request.core, Role.CORE, request.device),
        load_examinee(request.base, Role.BASE, request.device),
        load_examinee(request.control, Role.CONTROL, request.device) if request.control else None,
    )


def examine(
    exam: Exam, field: Field, profile: Profile, known: Ledger | None = None, *, attacks: str = ATTACKS
) -> Ledger:
    """Every attack on every model, with a progress bar on the terminal.

    What stands in `known` of the base and the control is taken over, and those two are not attacked again.
    """
    ledger = Ledger()
    if known is not None:
        shared = (Role.BASE, Role.CONTROL, Role.CHANCE)
        ledger.outcomes |= {key: one for key, one in known.outcomes.items() if key[1] in shared}
        ledger.curves += [curve for curve in known.curves if curve.role in shared]
    steps = [
        step
        for step in plan(exam, field, profile, ledger)
        if step.name[0] in attacks and (known is None or step.role is Role.CORE)
    ]
    with _bar(len(steps)) as bar:
        for step in steps:
            _take(step, exam, bar)
    return ledger


def _examine_apart(exam: Exam, field: Field, request: Request, workers: int) -> Ledger:
    """The same, by several processes."""
    ledger = Ledger()
    steps = [step for step in plan(exam, field, request.profile, ledger) if step.name[0] in request.attacks]
    names = sorted((step.name for step in steps), key=_turn)
    parts: dict[str, Ledger] = {}
    with _bar(len(steps)) as bar:
        for name, part in side_by_side(_prepared, (request,), names, workers):
            parts[name] = part
            _say(bar, f"{name}, done")
            bar.update()
    for step in steps:  # in their order, whoever was done first
        ledger.join(parts[step.name])
    return ledger


def _turn(name: str) -> int:
    """The place of a step; one that is not listed comes last."""
    places = (place for place, begin in enumerate(_LONGEST_FIRST) if name.startswith(begin))
    return next(places, len(_LONGEST_FIRST))


def _prepared(request: Request) -> Callable[[str], Ledger]:
    """In a worker: what gives a step's own outcomes by its name."""
    exam, _ = read_exam(request)
    ledger = Ledger()
    steps = {step.name: step for step in plan(exam, read_field(request), request.profile, ledger)}

    def take(name: str) -> Ledger:
        ledger.outcomes, ledger.curves, ledger.not_tested = {}, [], []
        torch.manual_seed(exam.seed)
        steps[name].go(lambda _: None)
        return Ledger(ledger.outcomes, ledger.curves, ledger.not_tested)

    return take


def _fitting(core: Examinee) -> int:
    """How many workers do most: one a core, where a model is neither so small that they start longer than they work,
    nor so large that each of its operations keeps all cores busy.
    """
    small, large = _WORTHWHILE
    worthwhile = core.device.type == "cpu" and small <= core.parameters <= large
    return min(_MOST_WORKERS, torch.get_num_threads()) if worthwhile else 1


def _take(step: Step, exam: Exam, bar: "tqdm[Never]") -> None:
    _say(bar, step.name)
    torch.manual_seed(exam.seed)
    step.go(partial(_show, bar, step.name))
    bar.update()


def _bar(steps: int) -> "tqdm[Never]":
    return tqdm(total=steps, desc="evaluate", unit="attack", file=sys.stderr, disable=not sys.stderr.isatty())


def _say(bar: "tqdm[Never]", step: str) -> None:
    bar.set_postfix_str(step)
    if bar.disable:
        say(step)


def say(what: str) -> None:
    """A line of progress with its time, for long work that is read in a log."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)  # noqa: T201


def _show(bar: "tqdm[Never]", step: str, measure: str) -> None:
    bar.set_postfix_str(f"{step}: {measure}")


def plan(exam: Exam, field: Field, profile: Profile, ledger: Ledger) -> Iterator[Step]:
    """The steps of an evaluation; stand-ins are asked where there is no control."""
    guessed = (True, False) if field.control is None else (False,)
    for one in field.all:
        for invented in guessed if one.role is Role.CORE else (False,):
            who = f"{one.role}, stand-ins" if invented else str(one.role)
            yield Step(f"A {who}", one.role, partial(attack_behaviour, exam, one, ledger, profile, invented=invented))
            yield Step(f"B lens {who}", one.role, partial(attack_lens, exam, one, ledger, profile, invented=invented))
    tasks = probe_tasks(exam, profile)
    if not tasks:
        ledger.skip("B.probe_*: no relation has few enough values, with six subjects each, for a probe")
    elif unprobed(exam, tasks):
        probed = ", ".join(task.relation for task in tasks)
        ledger.skip(f"B.probe_*: only {probed} were probed, not {', '.join(unprobed(exam, tasks))}")
    for one in field.all if tasks else ():
        yield Step(f"B probes {one.role}", one.role, partial(attack_probes, tasks, one, ledger, profile))
    if tasks:
        yield Step("B names", Role.CHANCE, partial(attack_names, tasks, ledger, profile))
    for one in field.all:
        stand_ins = one.role is Role.CORE and field.control is None
        for way in relearnings(profile, one.role):
            relearning = partial(
                attack_relearning, exam, one, field.base, ledger, profile, ways=(way,), stand_ins=stand_ins
            )
            yield Step(f"{way.measure} {one.role}", one.role, relearning)
        weights = partial(attack_weights, exam, one, field.base, ledger, profile, stand_ins=stand_ins)
        yield Step(f"C weights {one.role}", one.role, weights)
    for one in field.all:
        yield Step(f"D {one.role}", one.role, partial(attack_reasoning, exam, one, ledger, profile))
        yield Step(f"E {one.role}", one.role, partial(attack_memory, exam, one, ledger, profile))


def write_up(
    exam: Exam,
    field: Field,
    ledger: Ledger,
    profile: Profile,
    sources: Sequence[Source],
    duration_s: float,
    attacks: str = ATTACKS,
) -> Report:
    """Judge the outcomes and make the report of them."""
    verdicts = judge(ledger, profile.thresholds)
    return Report(
        protocol_version=PROTOCOL_VERSION,
        profile=profile.name,
        attacks="".join(sorted(set(attacks))),
        created=now(),
        duration_s=round(duration_s, 1),
        subjects=tuple(
            Subject(role=one.role, name=one.name, parameters=one.parameters, sha256=digest(one.model))
            for one in field.all
        ),
        facts=tuple(FactsUsed(file=one.name, sha256=one.sha256, rows=one.rows) for one in sources),
        seeds=(exam.seed,),
        figures=figures_of(ledger),
        curves=tuple(line_of(curve) for curve in ledger.curves),
        verdicts=tuple(judgement_of(verdict) for verdict in verdicts),
        passed=passes(verdicts),
        not_tested=untested(ledger, verdicts, profile, has_control=field.control is not None),
        versions=versions(),
    )
