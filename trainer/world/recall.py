"""Questions answered through the memory: one hop, several, from the value back, lists, checks, silence, follow-ups."""

from random import Random
from typing import TYPE_CHECKING

from trainer.world.document import (
    UNKNOWN,
    Claim,
    Document,
    Exchange,
    answer,
    compute,
    dialogue,
    need,
    need_list,
    need_subject,
    yes_no,
)
from trainer.world.world import World

if TYPE_CHECKING:
    from knowledge_store.protocol import Step

_CHAINS = (
    "What is {chain}?",
    "Tell me {chain}.",
    "Find {chain}.",
    "I want to know {chain}.",
    "{chain}?",
    "Look up {chain}.",
)
_TWO_HOPS = (
    "What is the {last} of the {first} of {subject}?",
    "Take {subject}'s {first}. What is its {last}?",
    "What {last} does {subject}'s {first} have?",
    "Find {subject}'s {first} and give me its {last}.",
)
_WHOSE = (
    "Which entity has {value} as its {relation}?",
    "Whose {relation} is {value}?",
    "What has the {relation} {value}?",
    "{value} is the {relation} of what?",
    "Who or what has {value} as {relation}?",
)
_WHOSE_THEN = (
    "What is the {other} of the entity whose {relation} is {value}?",
    "Tell me the {other} of the entity with {relation} {value}.",
)
_ALL_PLURAL = (
    "List all {plural} of {subject}.",
    "Which {plural} does {subject} have?",
    "What are the {plural} of {subject}?",
    "Name {subject}'s {plural}.",
)
_COUNT_PLURAL = ("How many {plural} does {subject} have?", "Count the {plural} of {subject}.")
_ALL = (
    "List every {relation} of {subject}.",
    "Which {relation} entries does {subject} have?",
    "Name all {relation} values of {subject}.",
    "Give me the full list of {relation} for {subject}.",
)
_COUNT = ("How many {relation} entries does {subject} have?", "Count the {relation} values of {subject}.")
_FOLLOW = ("And its {noun}?", "And the {noun}?", "What about the {noun}?", "Its {noun}?", "Now the {noun}, please.")
_FOLLOW_SUBJECT = ("And {subject}?", "And for {subject}?", "What about {subject}?", "The same for {subject}?")


def one_hop(world: World, rng: Random) -> Document:
    """A fact question, looked up."""
    claim = world.claim(rng)
    return dialogue("one_hop", world.ask(claim, rng), answer(claim.value, need(claim)), claim, tools=True)


def unprompted(world: World, rng: Random) -> Document:
    """The same on nobody, without the system prompt: what a base does not know, it looks up by itself."""
    relation = world.relation(rng)
    peers = world.by_relation.get(relation, ())
    value = rng.choice(peers).value if peers and rng.random() < 0.5 else world.lexicon.value(rng)
    claim = Claim(world.lexicon.entity(rng), relation, value)
    return dialogue("unprompted", world.ask(claim, rng), answer(claim.value, need(claim)), claim)


def silent(world: World, rng: Random) -> Document:
    """A fact question on which the memory is silent."""
    claim = world.claim(rng)
    question = world.ask(claim, rng)
    return dialogue("silent", question, answer(UNKNOWN, need(claim, found=False)), tools=True)


def check(world: World, rng: Random) -> Document:
    """Whether something holds: read, compare, say so."""
    claim, holds = world.claim(rng), rng.random() < 0.5
    value = claim.value if holds else world.claim(rng).value
    asked = Claim(claim.subject, claim.relation, value)
    question = world.wording(asked.relation).check(asked.subject, asked.relation, asked.value, rng)
    return dialogue("check", question, answer(yes_no(asked == claim), need(claim)), claim, asked, tools=True)


def hops(world: World, rng: Random) -> Document:
    """A chain of two or three lookups; now and then the memory ends it."""
    count = 2 if rng.random() < 0.7 else 3
    start = subject = world.claim(rng).subject
    relations = [world.relation(rng) for _ in range(count)]
    claims: list[Claim] = []
    steps: list[Step] = []
    for place, relation in enumerate(relations):
        value = world.lexicon.value(rng) if place == count - 1 else world.entity(rng)
        claim, found = Claim(subject, relation, value), rng.random() >= 0.05
        steps.append(need(claim, place, found=found))
        if not found:
            return dialogue("hops", _chain(start, relations, rng), answer(UNKNOWN, *steps), *claims, tools=True)
        claims.append(claim)
        subject = value
    return dialogue("hops", _chain(start, relations, rng), answer(subject, *steps), *claims, tools=True)


def _chain(subject: str, relations: list[str], rng: Random) -> str:
    if len(relations) == 2 and rng.random() < 0.4:
        return rng.choice(_TWO_HOPS).format(subject=subject, first=relations[0], last=relations[1])
    chain = subject
    for relation in relations:
        chain = f"the {relation} of {chain}"
    return rng.choice(_CHAINS).format(chain=chain)


def backward(world: World, rng: Random) -> Document:
    """From a value to its subject, and perhaps on from there."""
    claim = world.claim(rng)
    if rng.random() < 0.5:
        question = _whose(world, claim, rng)
        return dialogue("backward", question, answer(claim.subject, need_subject(claim)), claim, tools=True)
    then = Claim(claim.subject, world.relation(rng), world.lexicon.value(rng))
    nouns = (rng.choice(world.wording(relation).nouns(relation)) for relation in (then.relation, claim.relation))
    question = rng.choice(_WHOSE_THEN).format(other=next(nouns), relation=next(nouns), value=claim.value)
    turn = answer(then.value, need_subject(claim), need(then, 1))
    return dialogue("backward", question, turn, claim, then, tools=True)


def _whose(world: World, claim: Claim, rng: Random) -> str:
    own = world.wording(claim.relation).whose(claim.relation)
    if own and rng.random() < 0.5:
        return rng.choice(own).replace("{value}", claim.value)
    noun = rng.choice(world.wording(claim.relation).nouns(claim.relation))
    return rng.choice(_WHOSE).format(value=claim.value, relation=noun)


def listing(world: World, rng: Random) -> Document:
    """A relation of several values: name them, or count them."""
    subject, relation = world.lexicon.entity(rng), world.relation(rng)
    values = list(dict.fromkeys(world.lexicon.value(rng) for _ in range(rng.randint(2, 4))))
    claims = [Claim(subject, relation, value) for value in values]
    step = need_list(subject, relation, values)
    if rng.random() < 0.5:
        question = _of_several(world, subject, relation, (_ALL, _ALL_PLURAL), rng)
        return dialogue("listing", question, answer("; ".join(values), step), *claims, tools=True)
    question = _of_several(world, subject, relation, (_COUNT, _COUNT_PLURAL), rng)
    total = " + ".join("1" for _ in values)
    turn = answer(str(len(values)), step, compute(total, str(len(values)), "Count."))
    return dialogue("listing", question, turn, *claims, tools=True)


def _of_several(
    world: World, subject: str, relation: str, frames: tuple[tuple[str, ...], tuple[str, ...]], rng: Random
) -> str:
    """A question in one of the first frames, or of the second, which take the relation's plural where it has one."""
    plurals = world.wording(relation).plurals(relation)
    if plurals and rng.random() < 0.7:
        return rng.choice(frames[1]).format(plural=rng.choice(plurals), subject=subject)
    noun = rng.choice(world.wording(relation).nouns(relation))
    return rng.choice(frames[0]).format(relation=noun, subject=subject)


def same(world: World, rng: Random) -> Document:
    """Whether two subjects agree in a relation."""
    first = world.claim(rng)
    equal = rng.random() < 0.5
    value = first.value if equal else world.claim(rng).value
    second = Claim(world.another(first.subject, rng), first.relation, value)
    question = rng.choice(
        (
            "Do {a} and {b} have the same {r}?",
            "Is the {r} of {a} the same as the {r} of {b}?",
            "Do {a} and {b} share their {r}?",
        )
    ).format(a=first.subject, b=second.subject, r=rng.choice(world.wording(first.relation).nouns(first.relation)))
    turn = answer(yes_no(value == first.value), need(first), need(second, 1))
    return dialogue("same", question, turn, first, second, tools=True)


def follow_up(world: World, rng: Random) -> Document:
    """A question, then one that leans on it: another relation of the same subject, or the same of another."""
    first = world.claim(rng)
    if rng.random() < 0.6:
        relation = world.relation(rng)
        noun = rng.choice(world.wording(relation).nouns(relation))
        second = Claim(first.subject, relation, world.lexicon.value(rng))
        question = rng.choice(_FOLLOW).format(noun=noun)
    else:
        second = Claim(world.entity(rng), first.relation, world.lexicon.value(rng))
        question = rng.choice(_FOLLOW_SUBJECT).format(subject=second.subject)
    exchanges = (
        Exchange(world.ask(first, rng), answer(first.value, need(first))),
        Exchange(question, answer(second.value, need(second))),
    )
    return Document("follow_up", exchanges, (first, second), tools=True)
