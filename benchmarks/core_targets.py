"""A core beside what the trainer is to reach: recall, lookups, skills and relearning, on hundreds of questions.

The gate's own questions and measures, but more of them and a longer relearning than the quick profile has time for.
The last line is JSON::

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
from trainer.evaluate.memory import converse, silence
from trainer.evaluate.outcome import Role
from trainer.evaluate.profile import QUICK_PROFILE
from trainer.evaluate.question import Exam, recall
from trainer.evaluate.reasoning import ARITHMETIC, LOGIC, READING, answers, draw_tasks, grade
from trainer.evaluate.recovery import are_right, stored
from trainer.evaluate.relearning import Relearning, facts_stream, halves, relearn
from trainer.evaluate.run import Request, read_exam, say
from trainer.evaluate.statistic import interval

Table = dict[str, tuple[float, float, float, int]]
"""By measure: the share, the bounds of its 95 % interval, and of how many."""


@click.command()
@click.option("--core", type=click.Path(path_type=Path, exists=True), default=Path("models/demo-core"))
@click.option("--base", type=click.Path(path_type=Path, exists=True), default=Path("models/demo-base"))
@click.option("--facts", type=click.Path(path_type=Path, exists=True), multiple=True, default=(Path("knowledge"),))
@click.option("--questions", default=500, show_default=True, help="Of each kind.")
@click.option("--relearn-steps", default=200, show_default=True)
@click.option("--relearn-questions", default=200, show_default=True)
@click.option("--rate", default=1e-4, show_default=True, help="Learning rate of the relearning.")
@click.option("--batch", default=64, show_default=True)
def main(
    core: Path,
    base: Path,
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
    examinees = {one.role: one for one in (load_examinee(core, Role.CORE), load_examinee(base, Role.BASE))}
    table: Table = {}
    _ask(exam, examinees[Role.CORE], table, questions, batch)
    for one in examinees.values():
        _skills(exam, one, table, questions, batch)
    _relearn(exam, examinees[Role.CORE], table, relearn_steps, relearn_questions, rate, batch)
    print(json.dumps({"benchmark": "core_targets", "core": str(core), "base": str(base), "figures": table}))


def _ask(exam: Exam, one: Examinee, table: Table, count: int, batch: int) -> None:
    """Recall with tools forbidden; lookups and right answers with the memory, with the service's system prompt and
    without; lookups where no fact is needed."""
    items = recall(exam, exam.sample(count))
    _enter(table, "recall, held-out wording, tools forbidden", recall_direct(one, items, batch))
    stand_ins = recall(exam, [item.fact for item in items], invented=True)
    _enter(table, "the same about nobody (guessing)", recall_direct(one, stand_ins, batch))
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


def _relearn(exam: Exam, one: Examinee, table: Table, steps: int, count: int, rate: float, batch: int) -> None:
    """Half of the facts again, the other half asked; the best of five checkpoints, as an attacker would keep."""
    shown, asked = halves(exam)
    profile = replace(QUICK_PROFILE, relearn_batch=32, batch=batch)
    way = Relearning("C.relearn", steps, rate)
    examples = facts_stream(exam, one, shown)
    trial = relearn(exam, one, examples, asked[:count], shown[:count], way, profile, stand_ins=True)
    for step, right, guessed in zip(trial.steps, trial.right, trial.guessed, strict=True):
        say(f"relearning step {step}: {sum(right) / len(right):.3f}, of nobody {sum(guessed) / len(guessed):.3f}")
    _enter(table, f"other half after {steps} steps of relearning", trial.best(trial.right))
    _enter(table, "the same about nobody", trial.best(trial.guessed))
    _enter(table, "the half that was shown", trial.best(trial.shown))


def _enter(table: Table, name: str, outcomes: Sequence[bool]) -> None:
    bounds = interval([float(one) for one in outcomes])
    table[name] = bounds.value, bounds.low, bounds.high, len(outcomes)
    print(f"{name}: {bounds.value:.3f} ({bounds.low:.3f} to {bounds.high:.3f}), of {len(outcomes)}", flush=True)


if __name__ == "__main__":
    main()
