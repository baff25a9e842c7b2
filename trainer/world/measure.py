"""Questions that compare and compute what was read: numbers, years, order in time, word problems over the memory."""

from random import Random

from knowledge_store.protocol import Step
from trainer.world.document import Claim, Document, answer, compute, dialogue, need, truth, yes_no
from trainer.world.lexicon import words
from trainer.world.world import World

_BEFORE = {
    "founded": (
        "Was {a} founded before {b}?",
        "Is {a} older than {b}?",
        "Did {a} start earlier than {b}?",
        "Was {a} set up before {b} was?",
    ),
    "birth year": ("Was {a} born before {b}?", "Is {a} older than {b}?", "Did {a} come into the world before {b}?"),
}
_BEFORE_ANY = ("Is the {r} of {a} earlier than that of {b}?", "Does {a} have an earlier {r} than {b}?")
_FIRST = {
    "founded": ("Which was founded first, {a} or {b}?", "Which is older, {a} or {b}?"),
    "birth year": ("Who was born first, {a} or {b}?", "Who is older, {a} or {b}?"),
}
_FIRST_ANY = ("Which has the earlier {r}, {a} or {b}?",)
_AFTER = {  # {a} came first
    "founded": (
        "How many years after {a} was {b} founded?",
        "How much later than {a} did {b} start, in years?",
        "By how many years is {a} older than {b}?",
    ),
    "birth year": (
        "How many years after {a} was {b} born?",
        "By how many years is {a} older than {b}?",
    ),
}
_BETWEEN = {"birth year": ("How many years lie between the births of {a} and {b}?",)}
_BETWEEN_ANY = ("How many years lie between the {r} of {a} and that of {b}?",)
_AGE = {
    "founded": ("How old was {a} in {year}?", "In {year}, how many years had {a} existed?"),
    "birth year": ("How old was {a} in {year}?", "What age did {a} reach in {year}?"),
}
_AGE_ANY = ("In {year}, how many years had passed since the {r} of {a}?",)
_LARGER = (
    "Which has the larger {r}, {a} or {b}?",
    "Between {a} and {b}, which has the higher {r}?",
    "{a} or {b}: whose {r} is greater?",
)
_SMALLER = ("Which has the smaller {r}, {a} or {b}?", "Between {a} and {b}, which has the lower {r}?")
_MORE = ("Which is {more}, {a} or {b}?", "Between {a} and {b}, which is {more}?", "What is {more}: {a} or {b}?")
_IS_MORE = ("Is {a} {more} than {b}?", "Would you call {a} {more} than {b}?")
_GREATER = ("Is the {r} of {a} greater than the {r} of {b}?", "Does {a} have a higher {r} than {b}?")
_WITH_NUMBER = (
    ("What is {y} times the {r} of {a}?", "*"),
    ("Multiply the {r} of {a} by {y}.", "*"),
    ("What is the {r} of {a} plus {y}?", "+"),
    ("Add {y} to the {r} of {a}.", "+"),
    ("What is the {r} of {a} minus {y}?", "-"),
    ("Take {y} away from the {r} of {a}.", "-"),
)
_STORIES = (
    ("{a} has a {r} of {x}? Check it. If {y} more are added, what is the total?", "+"),
    ("A shop sells {a} by the piece. Its {r} is in the memory. How much do {y} pieces come to?", "*"),
    ("Use the {r} of {a}. Someone takes {y} away. How much is left?", "-"),
    ("{y} people each get the {r} of {a}. How much is that together?", "*"),
)


def _number(world: World, rng: Random, high: int = 0) -> int:
    top = high or rng.choice((20, 100, 1000, 2030, 10000))
    return rng.randint(1, 99 if world.lexicon.pool else top)


def _pair(
    world: World, rng: Random, relations: tuple[str, ...], low: int = 0, high: int = 0
) -> tuple[Claim, Claim, int, int]:
    relation = rng.choice(relations)
    x = rng.randint(low, high) if high else _number(world, rng)
    y = rng.randint(low, high) if high else _number(world, rng)
    y += x == y
    first = world.entity(rng)
    second = world.another(first, rng)
    return Claim(first, relation, str(x)), Claim(second, relation, str(y)), x, y


def _read(*claims: Claim) -> tuple[Step, ...]:
    return tuple(need(claim, place) for place, claim in enumerate(claims))


def _noun(world: World, claim: Claim, rng: Random) -> str:
    return rng.choice(world.wording(claim.relation).nouns(claim.relation))


def _word(world: World, frame: str, one: Claim, two: Claim, rng: Random) -> str:
    return frame.format(r=_noun(world, one, rng), a=one.subject, b=two.subject)


def compare(world: World, rng: Random) -> Document:
    """Which of two has more, or less, of something."""
    one, two, x, y = _pair(world, rng, words().numeric_relations)
    step = compute(f"{x} > {y}", truth(x > y), "Compare.")
    kind = rng.randrange(3)
    larger, smaller = (one, two) if x > y else (two, one)
    said = (larger.subject, smaller.subject, yes_no(x > y))[kind]
    own = world.wording(one.relation).comparatives(one.relation)
    if own and rng.random() < 0.5:
        more, less = rng.choice(own)
        frame = rng.choice((_MORE, _MORE, _IS_MORE)[kind]).replace("{more}", (more, less, more)[kind])
    else:
        frame = rng.choice((_LARGER, _SMALLER, _GREATER)[kind])
    question = _word(world, frame, one, two, rng)
    return dialogue("compare", question, answer(said, *_read(one, two), step), one, two, tools=True)


def order_in_time(world: World, rng: Random) -> Document:
    """Was A founded before B? Which was first?"""
    one, two, x, y = _pair(world, rng, words().year_relations, *_years(world))
    step = compute(f"{x} < {y}", truth(x < y), "Compare.")
    if rng.random() < 0.6:
        frames = _BEFORE.get(one.relation, _BEFORE_ANY)
        said = yes_no(x < y)
    else:
        frames = _FIRST.get(one.relation, _FIRST_ANY)
        said = one.subject if x < y else two.subject
    question = _word(world, rng.choice(frames), one, two, rng)
    return dialogue("order_in_time", question, answer(said, *_read(one, two), step), one, two, tools=True)


def years_between(world: World, rng: Random) -> Document:
    """How many years after A was B founded? How old was A in a year?"""
    one, two, x, y = _pair(world, rng, words().year_relations, *_years(world))
    if rng.random() < 0.6:
        after, between = _AFTER.get(one.relation, ()), _BETWEEN.get(one.relation, _BETWEEN_ANY)
        frame = rng.choice((*after, *between))
        early, late = min(x, y), max(x, y)
        if frame in after and x > y:
            one, two = two, one
        question = _word(world, frame, one, two, rng)
        step = compute(f"{late} - {early}", str(late - early))
        return dialogue(
            "years_between", question, answer(str(late - early), *_read(one, two), step), one, two, tools=True
        )
    year = x + rng.randint(1, 80)
    frame = rng.choice(_AGE.get(one.relation, _AGE_ANY))
    question = frame.format(r=_noun(world, one, rng), a=one.subject, year=year)
    step = compute(f"{year} - {x}", str(year - x))
    return dialogue("years_between", question, answer(str(year - x), need(one), step), one, tools=True)


def _years(world: World) -> tuple[int, int]:
    return (10, 99) if world.lexicon.pool else (1500, 2024)


def arithmetic(world: World, rng: Random) -> Document:
    """Sums, differences and products of what was read."""
    one, two, x, y = _pair(world, rng, words().numeric_relations)
    if rng.random() < 0.5:
        frame, sign = rng.choice(
            (
                ("What is the sum of the {r} of {a} and the {r} of {b}?", "+"),
                ("Add up the {r} of {a} and that of {b}.", "+"),
                ("By how much does the {r} of {a} exceed the {r} of {b}?", "-"),
                ("What is the difference between the {r} of {a} and that of {b}?", "-"),
            )
        )
        if "exceed" in frame and x < y:
            one, two = two, one
        question = _word(world, frame, one, two, rng)
        if sign == "-" and x < y:
            x, y = y, x
        result = _apply(sign, x, y)
        turn = answer(str(result), *_read(one, two), compute(f"{x} {sign} {y}", str(result)))
        return dialogue("arithmetic", question, turn, one, two, tools=True)
    frame, sign = rng.choice(_WITH_NUMBER)
    return _with_number(world, "arithmetic", frame, sign, one, x, rng)


def story(world: World, rng: Random) -> Document:
    """A word problem that takes one of its numbers from the memory."""
    one, _, x, _ = _pair(world, rng, words().numeric_relations)
    frame, sign = rng.choice(_STORIES)
    return _with_number(world, "story", frame, sign, one, x, rng)


def _with_number(world: World, kind: str, frame: str, sign: str, claim: Claim, x: int, rng: Random) -> Document:
    y = rng.randint(1, min(x, 50)) if "left" in frame else rng.randint(2, 50)
    result = _apply(sign, x, y)
    question = frame.format(r=_noun(world, claim, rng), a=claim.subject, x=x, y=y)
    turn = answer(str(result), need(claim), compute(f"{x} {sign} {y}", str(result)))
    return dialogue(kind, question, turn, claim, tools=True)


def _apply(sign: str, x: int, y: int) -> int:
    return {"+": x + y, "-": x - y, "*": x * y}[sign]
