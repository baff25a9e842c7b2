"""Which of the facts the base knows at all: asked once, before a run takes them out. Called by `preparation.prepare`.

A fact that is declared unknown stays in the weights, so one right answer in one wording is enough to be known.
"""

import time
from dataclasses import dataclass
from random import Random

from trainer.base_model import Base
from trainer.canary import exact, recall_examples, value_examples
from trainer.config import RunConfig
from trainer.errors import FactsError
from trainer.fact import Target
from trainer.machine import Machine
from trainer.progress import watched
from trainer.reader import Reader
from trainer.world.phrasing import Phrasings
from trainer.world.world import World

MORE_WORDINGS = 16
_WORDINGS = 2 + MORE_WORDINGS
_CHUNK = 4096
_TITLE = f"asking the base which facts it knows, {_CHUNK} a part"


@dataclass(frozen=True, slots=True)
class Known:
    """Which of the targets the base knows. Those beyond the `asked` count as known; asking took `asked_s`."""

    facts: tuple[Target, ...]
    unknown: tuple[Target, ...]
    asked: int = 0
    asked_s: float = 0.0
    wordings: int = 0
    """In how many wordings a fact was asked before it counted as unknown; 0 where none was asked."""


def know(
    base: Base, reader: Reader, machine: Machine, world: World, config: RunConfig, *, most: int | None = None
) -> Known:
    """Ask the base for every target, or for a sample of `most`: in two wordings, and what it missed in more.

    It knows those that it gets right at least once.

    Raises:
        FactsError: it knows none of them.
    """
    if not config.facts.known_only:
        return Known(world.facts, ())
    rng, started = Random(f"{config.seed}/known"), time.perf_counter()
    asked = world.facts if most is None or most >= len(world.facts) else tuple(rng.sample(world.facts, most))
    encoder, answer = base.encoder, config.facts.answer
    unknown: list[Target] = []
    with machine.precision():
        starts = range(0, len(asked), _CHUNK)  # a million facts would not fit as examples
        for start in watched(starts, _TITLE, "part", shown=machine.is_main):
            part = asked[start : start + _CHUNK]
            both = [recall_examples(part, world, encoder, answer, rng, held_out=held) for held in (False, True)]
            looks = [exact(reader, examples, encoder) for examples in both]
            missed = [fact for fact, *right in zip(part, *looks, strict=True) if not any(right)]
            for number in range(MORE_WORDINGS):
                questions = [(_question(world.phrasings, fact, number), fact) for fact in missed]
                right = exact(reader, value_examples(questions, encoder, answer), encoder)
                missed = [fact for fact, is_right in zip(missed, right, strict=True) if not is_right]
            unknown += missed
    if len(unknown) == len(asked):
        raise FactsError(
            f"the base knows none of the {len(asked)} facts that it was asked, in {_WORDINGS} wordings each, so "
            "there is nothing to take out; check facts.answer (how the base words an answer), facts.phrasings, or set "
            "facts.known_only to false"
        )
    left_out = set(unknown)
    known = tuple(fact for fact in world.facts if fact not in left_out)
    return Known(known, tuple(unknown), len(asked), time.perf_counter() - started, _WORDINGS)


def _question(phrasings: Phrasings, fact: Target, number: int) -> str:
    """Wording `number` of those that are spread evenly over all that the fact's relation has."""
    templates = phrasings.questions(fact.relation)
    return templates[number * len(templates) // MORE_WORDINGS].replace("{subject}", fact.subject)
