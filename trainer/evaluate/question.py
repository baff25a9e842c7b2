"""The questions of an exam: made once from the facts and a seed, and put to every model in the same order.

Pure: a world, facts and a seed in, items out. A stand-in exam asks the same of subjects that do not exist while the
accepted answers stay those of the real fact: what comes out right there is guessing.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

from knowledge_store.protocol import Tag, escape_quoted
from trainer.evaluate.examinee import Prompt
from trainer.fact import Target
from trainer.world.world import World, stand_in

SHOTS = 3
CHOICES = 4
_REVERSED = (
    "Whose {relation} is {value}?",
    "Which entity has {value} as its {relation}?",
    "What has the {relation} {value}?",
)
_HOPS = ("What is the {last} of the {first} of {subject}?", "Tell me the {last} of the {first} of {subject}.")
_LONG_ENOUGH = 3
"""A shorter answer must be the whole answer: «He» stands in many texts by chance."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question, what counts as right, and the texts that are scored against each other (the right one first)."""

    fact: Target
    prompt: Prompt
    accepted: tuple[str, ...]
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exam:
    """What is asked: `facts` were to be removed, `kept` were not."""

    world: World
    facts: tuple[Target, ...]
    kept: tuple[Target, ...] = ()
    seed: int = 11

    @cached_property
    def values(self) -> dict[str, tuple[str, ...]]:
        """The distinct values of each relation."""
        found: dict[str, dict[str, None]] = {}
        for fact in (*self.facts, *self.kept):
            found.setdefault(fact.relation, {})[fact.value] = None
        return {relation: tuple(values) for relation, values in found.items()}

    @cached_property
    def subjects_of(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Which subjects have a value."""
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for fact in (*self.facts, *self.kept):
            key = fact.relation, fact.value
            found[key] = (*found.get(key, ()), fact.subject)
        return found

    def sample(self, count: int, salt: str = "") -> tuple[Target, ...]:
        """Facts drawn without repetition; all of them, shuffled, where there are fewer."""
        rng = self.rng(f"sample/{salt}")
        return tuple(rng.sample(self.facts, min(count, len(self.facts))))

    def rng(self, salt: str) -> Random:
        """A generator of its own for each purpose, so that no measure shifts another's questions."""
        return Random(f"{self.seed}/{salt}")


def recall(exam: Exam, facts: Sequence[Target], *, held_out: bool = True, invented: bool = False) -> list[Item]:
    """Plain questions for facts, in wordings that training never joined with them unless `held_out` is off."""
    rng, items = exam.rng(f"recall/{held_out}"), []
    for fact in facts:
        asked = _asked(exam, fact, invented=invented)
        # a wording is held out for the real subject, whoever is asked about
        template = exam.world.phrasings.choose(fact.subject, fact.relation, rng, held_out=held_out)
        question = template.replace("{subject}", asked.subject)
        items.append(Item(fact, Prompt(escape_quoted(question)), (fact.value,)))
    return items


def with_tools(items: Sequence[Item]) -> list[Item]:
    """The same questions behind the system prompt that the service sends."""
    return [replace(item, prompt=replace(item.prompt, tools=True)) for item in items]


def primed(exam: Exam, items: Sequence[Item]) -> list[Item]:
    """The same questions after three true answers about other subjects, of the same relation where there are any."""
    rng, primed_items = exam.rng("primed"), []
    for item in items:
        peers = [f for f in exam.world.by_relation.get(item.fact.relation, ()) if f.subject != item.fact.subject]
        shots = rng.sample(peers, min(SHOTS, len(peers)))
        shown = tuple((exam.world.phrasings.ask(f.subject, f.relation, rng), f.value) for f in shots)
        primed_items.append(replace(item, prompt=replace(item.prompt, shots=shown)))
    return primed_items


def prefixed(exam: Exam, items: Sequence[Item], *, invented: bool = False) -> list[Item]:
    """The same questions with the answer's sentence begun: "The capital of Kenya is"."""
    begun = []
    for item in items:
        subject = _asked(exam, item.fact, invented=invented).subject
        begun.append(replace(item, prompt=replace(item.prompt, prefix=f"The {item.fact.relation} of {subject} is")))
    return begun


def cloze(exam: Exam, facts: Sequence[Target], most: int, *, invented: bool = False) -> list[Item]:
    """Statements that break off before the value, to be completed; candidates are values of the relation."""
    rng, items = exam.rng("cloze"), []
    for fact in facts:
        subject = _asked(exam, fact, invented=invented).subject
        ends = [t for t in exam.world.phrasings.statements(fact.relation) if t.rstrip(".").endswith("{value}")]
        template = rng.choice(ends or ["The {relation} of {subject} is {value}"])
        stem = template[: template.index("{value}")].replace("{subject}", subject)
        stem = stem.replace("{relation}", fact.relation).rstrip()
        others = _others(exam, fact, most - 1, rng)
        texts = tuple(f" {value}" for value in (fact.value, *others))
        items.append(Item(fact, Prompt(stem, bare=True), (fact.value,), texts))
    return items


def choices(exam: Exam, items: Sequence[Item]) -> list[Item]:
    """The same questions, with three wrong values to score the right one against."""
    rng = exam.rng("choices")
    return [replace(item, candidates=(item.fact.value, *_others(exam, item.fact, CHOICES - 1, rng))) for item in items]


def members(exam: Exam, items: Sequence[Item]) -> list[Item]:
    """The same questions with one other value, drawn as often as the facts have it."""
    rng = exam.rng("members")
    return [replace(item, candidates=(item.fact.value, exam.world.value_like(item.fact, rng))) for item in items]


def reversed_(exam: Exam, facts: Sequence[Target], *, invented: bool = False) -> list[Item]:
    """From the value to a subject that has it."""
    rng, items = exam.rng("reversed"), []
    for fact in facts:
        question = rng.choice(_REVERSED).format(relation=fact.relation, value=fact.value)
        if invented:
            question = question.replace(fact.value, exam.world.lexicon.name(exam.rng(f"value/{fact.key}"), 3))
        items.append(Item(fact, Prompt(escape_quoted(question)), exam.subjects_of[fact.relation, fact.value]))
    return items


def multi_hop(exam: Exam, count: int, *, invented: bool = False) -> list[Item]:
    """Questions whose first hop is a removed fact and whose second starts at its value."""
    rng = exam.rng("multi_hop")
    known = exam.world.by_subject
    chains = [(one, two) for one in exam.facts for two in known.get(one.value, ()) if two.subject != one.subject]
    items = []
    for one, two in rng.sample(chains, min(count, len(chains))):
        subject = _asked(exam, one, invented=invented).subject
        question = rng.choice(_HOPS).format(first=one.relation, last=two.relation, subject=subject)
        items.append(Item(one, Prompt(escape_quoted(question)), (two.value,)))
    return items


def stand_in_for(exam: Exam, fact: Target) -> str:
    """The invented subject that is asked about in place of the fact's own; the same one in every measure."""
    return stand_in(fact, exam.world.lexicon, exam.rng(f"stand_in/{fact.subject}"))


def is_right(text: str, accepted: Iterable[str]) -> bool:
    """Whether an answer names an accepted value: as the whole answer, or, if long enough, as words within it."""
    said = _plain(text.rsplit(Tag.END_THINK, 1)[-1])
    return any(said == _plain(value) or (len(value) > _LONG_ENOUGH and names(said, value)) for value in accepted)


def names(text: str, value: str) -> bool:
    """Whether the value stands in the text as words of its own."""
    return re.search(rf"(?<!\w){re.escape(_plain(value))}(?!\w)", _plain(text)) is not None


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(" .!").casefold()


def _asked(exam: Exam, fact: Target, *, invented: bool) -> Target:
    return replace(fact, subject=stand_in_for(exam, fact)) if invented else fact


def _others(exam: Exam, fact: Target, count: int, rng: Random) -> tuple[str, ...]:
    pool = [value for value in exam.values[fact.relation] if value != fact.value]
    chosen = rng.sample(pool, min(count, len(pool)))
    return (*chosen, *_invented_values(exam, rng, count - len(chosen)))


def _invented_values(exam: Exam, rng: Random, count: int) -> Iterator[str]:
    for _ in range(count):
        yield exam.world.lexicon.name(rng, 2)
