"""F. Life: a core is not made once. Later removals with the same method, and removals of every size.

Request after request, each on the model that the one before left; what was taken out first must stay out, and the
skills must stay. Each request's facts are asked just before it too: a method that is not local took them out already,
and then the request shows nothing. Then, from the base anew, ten facts, a hundred, a thousand, all: what is recalled of
the removed and of the kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydantic import Field
from transformers import PreTrainedModel

from trainer.baselines.method import Applied, Workshop, apply, at_work
from trainer.config import RunConfig, Strict
from trainer.evaluate.behaviour import recall_direct
from trainer.evaluate.examinee import Examinee
from trainer.evaluate.generate import TOOL_TAGS
from trainer.evaluate.outcome import Curve, Ledger, Role
from trainer.evaluate.profile import Profile
from trainer.evaluate.question import Exam, recall
from trainer.evaluate.reasoning import LOGIC, READING, answers, draw_tasks, grade
from trainer.evaluate.statistic import interval
from trainer.fact import Target
from trainer.sources import streams_of
from trainer.streams.encoder import Encoder

_LATER = ("second", "third")
REQUESTS = 1 + len(_LATER)


class LifeConfig(Strict):
    """Which method lives on, and how much it removes."""

    method: str = Field(description="name of the method")
    sizes: tuple[int, ...] = Field(default=(10, 100, 1000), description="facts removed at once, beside all of them")


@dataclass(frozen=True)
class Estate:
    """What every removal starts from."""

    shop: Workshop
    run: RunConfig
    encoder: Encoder
    exam: Exam
    base: Examinee
    control: Examinee | None
    profile: Profile


def live(
    estate: Estate,
    method: Applied,
    emptied: PreTrainedModel,
    sizes: Sequence[int],
    ledger: Ledger,
    tick: Callable[[str], None],
) -> None:
    """Enter every measure of F; `emptied` is what the method makes of the base by removing all facts at once."""
    facts = list(estate.exam.facts)
    estate.exam.rng("life").shuffle(facts)
    parts = [facts[start::REQUESTS] for start in range(REQUESTS)]
    model = estate.shop.base
    for number, part in enumerate(parts):
        tick(f"F request {number + 1}")
        if number:
            _ask(estate, model, part, f"F.{_LATER[number - 1]}_before", ledger)
        model = remove(estate, method, model, part)
        if number:
            _ask(estate, model, part, f"F.{_LATER[number - 1]}_request", ledger)
    _ask(estate, model, parts[0], "F.first_stays", ledger)
    tick("F.skills")
    for one in (estate.base, replace(estate.base, role=Role.CORE, model=model)):
        ledger.add("F.skills", one.role, _skills(estate, one), seeds=(estate.exam.seed,))
    _by_size(estate, method, emptied, facts, sizes, ledger, tick)


def remove(estate: Estate, method: Applied, model: PreTrainedModel, facts: Sequence[Target]) -> PreTrainedModel:
    """Take facts out of a model, with streams of their own: what was removed before is no longer asked for."""
    world = replace(estate.exam.world, facts=tuple(facts))
    streams = streams_of(estate.run, world, estate.encoder, estate.run.output)
    return apply(method, at_work(estate.shop, model, streams))


def _ask(estate: Estate, model: PreTrainedModel, facts: Sequence[Target], measure: str, ledger: Ledger) -> None:
    items = recall(estate.exam, facts[: estate.profile.questions])
    models = [replace(estate.base, role=Role.CORE, model=model), estate.base, estate.control]
    for one in models:
        if one is not None:
            right = recall_direct(one, items, estate.profile.batch)
            ledger.add(measure, one.role, right, seeds=(estate.exam.seed,))
    if estate.control is None:
        fake = recall(estate.exam, facts[: estate.profile.questions], invented=True)
        ledger.add(measure, Role.STAND_IN, recall_direct(models[0] or estate.base, fake, estate.profile.batch))


def _skills(estate: Estate, one: Examinee) -> list[bool]:
    right: list[bool] = []
    for kinds in (READING, LOGIC):
        tasks = draw_tasks(estate.exam, kinds, estate.profile.skill_questions)
        right += grade(tasks, answers(one, tasks, TOOL_TAGS, estate.profile.batch))
    return right


def _by_size(
    estate: Estate,
    method: Applied,
    emptied: PreTrainedModel,
    facts: list[Target],
    sizes: Sequence[int],
    ledger: Ledger,
    tick: Callable[[str], None],
) -> None:
    """From the base anew: so many facts at once; recall of the removed, and of as many kept ones."""
    counts = [*(size for size in sizes if size < len(facts)), len(facts)]
    removed, kept = [], []
    for count in counts:
        tick(f"F {count} facts")
        some = count < len(facts)
        model = remove(estate, method, estate.shop.base, facts[:count]) if some else emptied
        one = replace(estate.base, role=Role.CORE, model=model)
        rows = []
        for asked in (facts[:count], facts[count:]):
            items = recall(estate.exam, asked[: estate.profile.questions])
            rows.append(recall_direct(one, items, estate.profile.batch) if items else [])
        removed.append(interval([float(right) for right in rows[0]]))
        if rows[1]:
            kept.append(interval([float(right) for right in rows[1]]))
    for label, bounds in (("removed facts", removed), ("kept facts", kept)):
        ledger.curves.append(
            Curve("F.by_size", Role.CORE, label, tuple(float(count) for count in counts[: len(bounds)]),
                  tuple(b.value for b in bounds), tuple(b.low for b in bounds), tuple(b.high for b in bounds),
                  estate.profile.questions)
        )  # fmt: skip
