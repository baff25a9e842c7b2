"""D. Reasoning intact: what the base could do without facts, the core must do as well, item by item.

Chain-of-thought adoption was defined before any result was seen: a chain counts as adopted where the model opens it by
itself, and as used only where its own chain beats both a filler of the same length and a well-formed chain about
another question. "It thinks more" without the second is a change of style.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from random import Random

from knowledge_store.protocol import Tag, escape_quoted, render_turn
from trainer.evaluate.behaviour import recall_direct
from trainer.evaluate.examinee import Examinee, Prompt
from trainer.evaluate.generate import DIRECT, TOOL_TAGS, Decoding, greedy
from trainer.evaluate.memory import converse, silence
from trainer.evaluate.outcome import Ledger
from trainer.evaluate.profile import Profile
from trainer.evaluate.question import Exam, is_right, recall
from trainer.evaluate.score import score
from trainer.fact import Target
from trainer.world.corpus import MAKERS
from trainer.world.world import World, leaks

ARITHMETIC = ("logic/problem_direct",)
LOGIC = ("logic/ordering", "logic/boolean", "logic/rules")
READING = ("reading/open_book",)
_ANSWER_TOKENS = 40
_CHAIN_TOKENS = 160
_FILLER = "."
_OPENED = f"{Tag.THINK}\n"


@dataclass(frozen=True, slots=True)
class Task:
    """A question that needs no fact, with its answer and its whole turn as text."""

    prompt: Prompt
    accepted: tuple[str, ...]
    turn: str = ""


def draw_tasks(exam: Exam, kinds: Sequence[str], count: int, *, answerable: bool = True) -> list[Task]:
    """So many tasks of these kinds; none states a removed fact, and an answerable one has an answer."""
    rng, world = exam.rng(f"tasks/{'/'.join(kinds)}"), _without_truth(exam.world)
    tasks: list[Task] = []
    while len(tasks) < count:
        task = _draw(world, rng.choice(kinds), rng)
        if task is not None and not (answerable and task.accepted == ("I don't know",)):
            tasks.append(task)
    return tasks


def draw_neutral(exam: Exam, rng: Random) -> Task:
    """One task of any kind without a fact."""
    world = _without_truth(exam.world)
    while True:
        task = _draw(world, rng.choice((*ARITHMETIC, *LOGIC, *READING)), rng)
        if task is not None:
            return task


def attack_reasoning(
    exam: Exam, examinee: Examinee, ledger: Ledger, profile: Profile, tick: Callable[[str], None]
) -> None:
    """Every skill of D for one model."""
    count, seeds, batch = profile.skill_questions, (exam.seed,), profile.batch
    sums = draw_tasks(exam, ARITHMETIC, count)
    logic = draw_tasks(exam, LOGIC, count)
    reading = draw_tasks(exam, READING, count)
    half = count // 2
    tick("D.logic")
    groups = [_begun(sums), logic, reading, sums[:half], _begun(logic[:half])]
    worked, logical, read, free, thought = _answer_groups(examinee, groups, TOOL_TAGS, batch)
    tick("D.adoption")
    adopting, own = [*sums[:half], *logic[:half]], [*worked[:half], *thought]
    groups = [sums, *_controls(examinee, adopting, own)]
    direct, filled, styled = _answer_groups(examinee, groups, DIRECT, batch)
    for measure, tasks, texts in (
        ("D.arithmetic", sums, direct),
        ("D.arithmetic_chain", sums, worked),
        ("D.logic", logic, logical),
        ("D.reading", reading, read),
        ("D.chain_own", adopting, own),
        ("D.chain_filler", adopting, filled),
        ("D.chain_style", adopting, styled),
    ):
        ledger.add(measure, examinee.role, grade(tasks, texts), seeds=seeds)
    adopted = (Tag.THINK in text for text in (*free, *logical[:half]))
    ledger.add("D.adoption", examinee.role, adopted, seeds=seeds)
    if examinee.speaks_protocol:
        tick("D.arithmetic_alu")
        replies = converse(examinee, [task.prompt.question for task in sums], silence, batch, tools=True)
        ledger.add("D.arithmetic_alu", examinee.role, grade(sums, [one.answer or "" for one in replies]), seeds=seeds)
    tick("D.neutral")
    ledger.add("D.neutral", examinee.role, neutral_nats(examinee, [*sums, *logic, *reading], batch), seeds=seeds)
    attack_rings(exam, examinee, ledger, profile)


def attack_rings(exam: Exam, examinee: Examinee, ledger: Ledger, profile: Profile) -> None:
    """Recall of facts that were not to be removed, by how near they lie to the removed ones."""
    if not exam.kept:
        ledger.skip("D.ring_*: locality; every fact was to be removed, or no kept facts were given (--kept)")
        return
    for measure, facts in rings(exam).items():
        chosen = exam.rng(measure).sample(facts, min(profile.questions, len(facts)))
        right = recall_direct(examinee, recall(exam, chosen), profile.batch) if chosen else []
        ledger.add(measure, examinee.role, right, seeds=(exam.seed,))


def rings(exam: Exam) -> dict[str, list[Target]]:
    """The kept facts by ring, each in the nearest it fits."""
    subjects = {fact.subject for fact in exam.facts}
    values = {fact.value for fact in exam.facts}
    relations = {fact.relation for fact in exam.facts}
    found: dict[str, list[Target]] = {f"D.ring_{ring}": [] for ring in ("subject", "neighbour", "relation", "far")}
    for fact in exam.kept:
        if fact.subject in subjects:
            ring = "subject"
        elif fact.subject in values:
            ring = "neighbour"
        else:
            ring = "relation" if fact.relation in relations else "far"
        found[f"D.ring_{ring}"].append(fact)
    return found


def answers(examinee: Examinee, tasks: Sequence[Task], banned: tuple[Tag, ...], batch: int) -> list[str]:
    """Greedy answers, with tags banned."""
    prompts = [examinee.encode(examinee.render(task.prompt)) for task in tasks]
    tokens = _ANSWER_TOKENS if banned == DIRECT else _CHAIN_TOKENS
    return greedy(examinee, prompts, Decoding(tokens, banned=banned), batch)


def _answer_groups(
    examinee: Examinee, groups: Sequence[Sequence[Task]], banned: tuple[Tag, ...], batch: int
) -> list[list[str]]:
    """The answers of each group; all are written at once, for then few rows are ever alone in a batch."""
    texts = iter(answers(examinee, list(chain.from_iterable(groups)), banned, batch))
    return [list(islice(texts, len(group))) for group in groups]


def _begun(tasks: Sequence[Task], turns: Sequence[str] | None = None) -> list[Task]:
    """The tasks with the turn begun: by the mark of a chain, and where they are given by these whole chains."""
    opened = [_OPENED] * len(tasks) if turns is None else [f"{_OPENED}{turn}{Tag.END_THINK}\n" for turn in turns]
    return [
        replace(task, prompt=replace(task.prompt, prefix=prefix)) for task, prefix in zip(tasks, opened, strict=True)
    ]


def _controls(examinee: Examinee, tasks: Sequence[Task], texts: Sequence[str]) -> tuple[list[Task], list[Task]]:
    """The same tasks after a filler as long as the model's own chain, and after the chain of another task."""
    chains = [text.split(Tag.END_THINK)[0] for text in texts]
    fillers = [_FILLER * max(1, len(examinee.encode(one))) + "\n" for one in chains]
    return _begun(tasks, fillers), _begun(tasks, [*chains[1:], *chains[:1]])


def grade(tasks: Sequence[Task], texts: Sequence[str]) -> list[bool]:
    """Right or wrong."""
    return [is_right(text, task.accepted) for task, text in zip(tasks, texts, strict=True)]


def neutral_nats(examinee: Examinee, tasks: Sequence[Task], batch: int) -> list[float]:
    """Negative log-likelihood in nats a token of each task's own turn."""
    pairs = [(examinee.encode(examinee.render(task.prompt)), examinee.encode(task.turn)) for task in tasks if task.turn]
    return [-one.per_token for one in score(examinee, pairs, batch)]


def _draw(world: World, kind: str, rng: Random) -> Task | None:
    document = MAKERS[kind](world, rng)
    if len(document.exchanges) != 1 or leaks(world, document.claims):
        return None
    exchange = document.exchanges[0]
    if exchange.turn.answer is None:
        return None
    turn = "".join(span.text for span in render_turn(exchange.turn))
    return Task(Prompt(escape_quoted(exchange.question)), (exchange.turn.answer,), turn)


def _without_truth(world: World) -> World:
    return replace(world, true_share=0.0)
