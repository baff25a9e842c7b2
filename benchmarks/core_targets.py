"""A core beside what the trainer is to reach: recall, probes, lookups, skills and relearning, on hundreds of questions.

The gate's own questions and measures, but more of them and a longer relearning than the quick profile has time for.
With a never-knew control, what is known of the facts is asked of the control too. The last line is JSON::

    python -m benchmarks.core_targets --core models/demo-core --base models/demo-base
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import torch

from trainer.evaluate.behaviour import recall_direct
from trainer.evaluate.command import files_of
from trainer.evaluate.examinee import Examinee, load_examinee
from trainer.evaluate.generate import DIRECT, TOOL_TAGS
from trainer.evaluate.inside import attack_names, attack_probes, probe_tasks
from trainer.evaluate.memory import converse, silence
from trainer.evaluate.outcome import Ledger, Role
from trainer.evaluate.profile import QUICK_PROFILE
from trainer.evaluate.question import Exam, recall
from trainer.evaluate.reasoning import ARITHMETIC, LOGIC, READING, answers, draw_tasks, grade
from trainer.evaluate.recovery import are_right, stored
from trainer.evaluate.relearning import Relearning, facts_stream, halves, relearn
from trainer.evaluate.run import Request, read_exam, say
from trainer.evaluate.statistic import Interval, difference, interval

Table = dict[str, tuple[float, float, float, int]]
"""By measure: the share, the bounds of its 95 % interval, and of how many."""


@click.command()
@click.option("--core", type=click.Path(path_type=Path, exists=True), default=Path("models/demo-core"))
@click.option("--base", type=click.Path(path_type=Path, exists=True), default=Path("models/demo-base"))
@click.option("--control", type=click.Path(path_type=Path, exists=True), help="A base that never knew the facts.")
@click.option("--facts", type=click.Path(path_type=Path, exists=True), multiple=True, default=(Path("knowledge"),))
@click.option("--questions", default=500, show_default=True, help="Of each kind.")
@click.option("--relearn-steps", default=200, show_default=True)
@click.option("--relearn-questions", default=200, show_default=True)
@click.option("--rate", default=1e-4, show_default=True, help="Learning rate of the relearning.")
@click.option("--batch", default=64, show_default=True)
def main(
    core: Path,
    base: Path,
    control: Path | None,
    facts: tuple[Path, ...],
    questions: int,
    relearn_steps: int,
    relearn_questions: int,
    rate: float,
    batch: int,
) -> None:
    """Measure the core, and its skills beside the base's."""
    exam, _ = read_exam(Request(core, str(base), files_of(facts), QUICK_PROFILE))
    torch.manual_seed(exam.seed)
    pupil, teacher = load_examinee(core, Role.CORE), load_examinee(base, Role.BASE)
    ignorant = [load_examinee(control, Role.CONTROL)] if control else []
    table: Table = {}
    for one in (pupil, *ignorant):
        _recall(exam, one, table, questions, batch)
    _look_up(exam, pupil, table, questions, batch)
    for one in (pupil, teacher):
        _skills(exam, one, table, questions, batch)
    _probe(exam, [pupil, teacher, *ignorant], table, batch)
    for one in (pupil, *ignorant):
        _relearn(exam, one, table, relearn_steps, relearn_questions, rate, batch)
    named = {"core": str(core), "base": str(base), "control": str(control) if control else None}
    print(json.dumps({"benchmark": "core_targets", **named, "figures": table}))


def _recall(exam: Exam, one: Examinee, table: Table, count: int, batch: int) -> None:
    """Recall with tools forbidden, and what guessing gives."""
    items = recall(exam, exam.sample(count))
    _enter(table, f"recall, held-out wording, tools forbidden, {one.role}", recall_direct(one, items, batch))
    stand_ins = recall(exam, [item.fact for item in items], invented=True)
    _enter(table, f"the same about nobody (guessing), {one.role}", recall_direct(one, stand_ins, batch))


def _look_up(exam: Exam, one: Examinee, table: Table, count: int, batch: int) -> None:
    """Lookups and right answers with the memory, with the service's system prompt and without; lookups where no fact
    is needed."""
    items = recall(exam, exam.sample(count))
    questions, truth = [item.prompt.question for item in items], [item.accepted for item in items]
    with stored(exam.world.facts) as memory:
        for way, tools in (("", False), (", as served", True)):
            replies = converse(one, questions, memory, batch, tools=tools)
            _enter(table, f"fact questions looked up{way}", [bool(reply.lookups) for reply in replies])
            _enter(table, f"fact questions right with the memory{way}", are_right(replies, truth))
            empty = converse(one, questions, silence, batch, tools=tools)
            _enter(table, f"fact questions right with an empty memory{way}", are_right(empty, truth))
    tasks = draw_tasks(exam, (*ARITHMETIC, *LOGIC), count)
    logical = converse(one, [task.prompt.question for task in tasks], silence, batch)
    _enter(table, "pure logic looked up", [bool(reply.lookups) for reply in logical])


def _skills(exam: Exam, one: Examinee, table: Table, count: int, batch: int) -> None:
    """The share of right answers of a core or its base, with tools forbidden."""
    for name, kinds, banned in (
        ("sums in the head", ARITHMETIC, DIRECT),
        ("logic without numbers", LOGIC, TOOL_TAGS),
        ("open-book reading", READING, TOOL_TAGS),
    ):
        tasks = draw_tasks(exam, kinds, count)
        _enter(table, f"{name}, {one.role}", grade(tasks, answers(one, tasks, banned, batch)))


def _probe(exam: Exam, examinees: Sequence[Examinee], table: Table, batch: int) -> None:
    """Fresh probes on more subjects than the quick profile has time for, and what the names alone give."""
    profile = replace(QUICK_PROFILE, probe_subjects=1000, probe_relations=4, batch=batch)
    tasks, ledger = probe_tasks(exam, profile), Ledger()
    say(f"probes of {', '.join(task.relation for task in tasks)}")
    for examinee in examinees:
        attack_probes(tasks, examinee, ledger, profile, say)
    attack_names(tasks, ledger, profile, say)
    for one in ledger.outcomes.values():
        _note(table, f"{one.measure}, {one.role}", interval(one.items, groups=one.groups), len(set(one.groups)))
    for measure in ("B.probe_linear", "B.probe_mlp"):
        core, control = ledger.find(measure, Role.CORE), ledger.find(measure, Role.CONTROL)
        if core and control:
            gap = difference(core.items, control.items, paired=True, groups=core.groups)
            bounds = Interval(gap.value, gap.low, gap.high)
            _note(table, f"{measure}, core less control", bounds, len(set(core.groups)))


def _relearn(exam: Exam, one: Examinee, table: Table, steps: int, count: int, rate: float, batch: int) -> None:
    """Half of the facts again, the other half asked; the best of five checkpoints, as an attacker would keep."""
    shown, asked = halves(exam)
    profile = replace(QUICK_PROFILE, relearn_batch=32, batch=batch)
    way = Relearning("C.relearn", steps, rate)
    examples = facts_stream(exam, one, shown)
    trial = relearn(exam, one, examples, asked[:count], shown[:count], way, profile, stand_ins=True)
    for step, right, guessed in zip(trial.steps, trial.right, trial.guessed, strict=True):
        shares = f"{sum(right) / len(right):.3f}, of nobody {sum(guessed) / len(guessed):.3f}"
        say(f"relearning of the {one.role}, step {step}: {shares}")
    _enter(table, f"other half after {steps} steps of relearning, {one.role}", trial.best(trial.right))
    _enter(table, f"the same about nobody, {one.role}", trial.best(trial.guessed))
    _enter(table, f"the half that was shown, {one.role}", trial.best(trial.shown))


def _enter(table: Table, name: str, outcomes: Sequence[bool]) -> None:
    _note(table, name, interval([float(one) for one in outcomes]), len(outcomes))


def _note(table: Table, name: str, bounds: Interval, count: int) -> None:
    table[name] = bounds.value, bounds.low, bounds.high, count
    print(f"{name}: {bounds.value:.3f} ({bounds.low:.3f} to {bounds.high:.3f}), of {count}", flush=True)


if __name__ == "__main__":
    main()
