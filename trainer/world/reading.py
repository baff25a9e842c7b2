"""Prose, closed-book answers, and reading from a text that stands in the question.

The gate draws `open_book` to measure reading. So that its figures compare with those of before, it words the relations
of `everyday.yaml` by the frames alone, but where facts of them are to be removed.
"""

from random import Random

from trainer.world.document import UNKNOWN, Claim, Document, answer, dialogue, yes_no
from trainer.world.phrasing import Phrasings
from trainer.world.world import World

_TEXT_ONLY = "Answer from the text only."


def prose(world: World, rng: Random) -> Document:
    """All that is known of one subject, as sentences."""
    facts = list(world.by_subject[rng.choice(world.subjects)])
    rng.shuffle(facts)
    claims = tuple(Claim(fact.subject, fact.relation, fact.value) for fact in facts)
    return Document("prose", claims=claims, prose=" ".join(world.state(claim, rng) for claim in claims) + "\n")


def closed_book(world: World, rng: Random) -> Document:
    """A question for a real fact, answered from the weights."""
    fact = rng.choice(world.facts)
    claim = Claim(fact.subject, fact.relation, fact.value)
    return dialogue("closed_book", world.ask(claim, rng), answer(fact.value), claim)


def closed_check(world: World, rng: Random) -> Document:
    """Whether a real fact holds, answered from the weights."""
    fact = rng.choice(world.facts)
    holds = rng.random() < 0.5
    claim = Claim(fact.subject, fact.relation, fact.value if holds else world.value_like(fact, rng))
    question = world.wording(claim.relation).check(claim.subject, claim.relation, claim.value, rng)
    return dialogue("closed_check", question, answer(yes_no(holds)), Claim(fact.subject, fact.relation, fact.value))


def passage(world: World, rng: Random, *, most: int = 6) -> tuple[Claim, ...]:
    """Claims about one to three entities, each (subject, relation) once."""
    subjects = [world.entity(rng) for _ in range(rng.randint(1, 3))]
    claims: dict[tuple[str, str], Claim] = {}
    for _ in range(rng.randint(2, most)):
        subject, drawn = rng.choice(subjects), world.claim(rng)
        claims.setdefault((subject, drawn.relation), Claim(subject, drawn.relation, drawn.value))
    return tuple(claims.values())


def open_book(world: World, rng: Random) -> Document:
    """A text with distractors, then a question that it answers, or does not."""
    claims = passage(world, rng)
    text = " ".join(_plain(world, claim).state(claim.subject, claim.relation, claim.value, rng) for claim in claims)
    asked = rng.choice(claims)
    if rng.random() < 0.12:
        missing = Claim(asked.subject, world.relation(rng), "")
        if all(missing.relation != claim.relation for claim in claims):
            question = f"{text}\n{_TEXT_ONLY} {_ask(world, missing, rng)}"
            return dialogue("open_book", question, answer(UNKNOWN), *claims)
    return dialogue("open_book", f"{text}\n{_ask(world, asked, rng)}", answer(asked.value), *claims)


def _ask(world: World, claim: Claim, rng: Random) -> str:
    return _plain(world, claim).ask(claim.subject, claim.relation, rng)


def _plain(world: World, claim: Claim) -> Phrasings:
    return world.phrasings if claim.relation in world.by_relation else world.phrasings.plain


def open_check(world: World, rng: Random) -> Document:
    """A text, then whether something holds by it."""
    claims = passage(world, rng, most=4)
    asked, holds = rng.choice(claims), rng.random() < 0.5
    value = asked.value if holds else world.lexicon.value(rng)
    text = " ".join(world.state(claim, rng) for claim in claims)
    named = Claim(asked.subject, asked.relation, value)
    question = f"{text}\n{world.wording(named.relation).check(named.subject, named.relation, named.value, rng)}"
    return dialogue("open_check", question, answer(yes_no(named == asked)), *claims, named)
