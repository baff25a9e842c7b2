"""Pure logic, which needs no fact: word problems, ordering, boolean expressions, rules, yes/no on numbers."""

import itertools
from dataclasses import dataclass
from random import Random

from knowledge_store.protocol import Step
from trainer.world.document import Document, answer, compute, dialogue, truth, yes_no
from trainer.world.lexicon import words
from trainer.world.world import World


@dataclass(frozen=True, slots=True)
class Problem:
    """A word problem and its working: (lead, expression, result) a line; the last result is the answer."""

    question: str
    lines: tuple[tuple[str, str, int], ...]

    @property
    def result(self) -> int:
        """What comes out."""
        return self.lines[-1][2]


def draw_problem(world: World, rng: Random) -> Problem:
    """One of ten kinds of word problem."""
    who, other = rng.sample(words().given_names, 2)
    thing = world.lexicon.noun(rng)
    a, b, c, p = rng.randint(2, 60), rng.randint(2, 40), rng.randint(2, 12), rng.randint(2, 9)
    sold, given = rng.randint(1, a + b), rng.randint(1, b * c)
    high, low = max(a, b), min(a, b)
    add, sub, mul = ("Add.", "{} + {}"), ("Subtract.", "{} - {}"), ("Multiply.", "{} * {}")
    makers = (
        (
            f"{who} has {a} {thing}. {other} gives {who} {b} more. How many {thing} does {who} have?",
            ((*add, a, b, a + b),),
        ),
        (f"{who} has {high} {thing} and loses {low}. How many {thing} are left?", ((*sub, high, low, high - low),)),
        (f"{who} buys {c} boxes of {thing}. Each box holds {b}. How many {thing} is that?", ((*mul, c, b, c * b),)),
        (
            f"{who} buys {c} boxes of {thing} with {b} in each and finds {a} more. How many {thing} does {who} have?",
            ((*mul, c, b, c * b), (*add, c * b, a, c * b + a)),
        ),
        (
            f"{who} packs {c} bags with {b} {thing} each, then gives {given} to {other}. How many {thing} are left?",
            ((*mul, c, b, c * b), (*sub, c * b, given, c * b - given)),
        ),
        (
            f"{who} has {a} {thing}. {other} has {b} {thing}. Together they sell {sold}. How many are left?",
            ((*add, a, b, a + b), (*sub, a + b, sold, a + b - sold)),
        ),
        (
            f"{who} has {a} {thing}. {other} has {c} times as many. How many do they have together?",
            ((*mul, a, c, a * c), (*add, a * c, a, a * c + a)),
        ),
        (
            f"{who} shares {b * c} {thing} equally among {c} friends. How many does each get?",
            (("Divide.", "{} / {}", b * c, c, b),),
        ),
        (
            f"{who} earns {a + p} coins a day for {c} days and spends {p} coins a day. How many coins remain?",
            (
                ("Earned.", "{} * {}", a + p, c, (a + p) * c),
                ("Spent.", "{} * {}", p, c, p * c),
                (*sub, (a + p) * c, p * c, a * c),
            ),
        ),
        (
            f"A {thing} costs {a} coins. {who} pays with {a * c + b} coins for {c} of them. How much change is that?",
            ((*mul, a, c, a * c), (*sub, a * c + b, a * c, b)),
        ),
    )
    question, lines = rng.choice(makers)
    return Problem(question, tuple((lead, form.format(x, y), result) for lead, form, x, y, result in lines))


def problem_direct(world: World, rng: Random) -> Document:
    """A word problem, answered at once."""
    problem = draw_problem(world, rng)
    return dialogue("problem_direct", problem.question, answer(str(problem.result)))


def problem_by_steps(world: World, rng: Random) -> Document:
    """A word problem, worked out in words."""
    problem = draw_problem(world, rng)
    steps = (Step((f"{lead} {what} = {result}",)) for lead, what, result in problem.lines)
    return dialogue("problem_by_steps", problem.question, answer(str(problem.result), *steps))


def problem_by_calc(world: World, rng: Random) -> Document:
    """A word problem, worked out by the ALU."""
    problem = draw_problem(world, rng)
    steps = (compute(what, str(result), lead) for lead, what, result in problem.lines)
    return dialogue("problem_by_calc", problem.question, answer(str(problem.result), *steps), tools=True)


def _thought(kind: str, question: str, lines: list[str], said: str, rng: Random) -> Document:
    steps = [Step((line,)) for line in lines] if rng.random() < 0.5 else []
    return dialogue(kind, question, answer(said, *steps))


def ordering(world: World, rng: Random) -> Document:
    """Who is the tallest of those who were compared?"""
    names = rng.sample(
        words().given_names[:8] if world.lexicon.pool else words().given_names,
        rng.randint(3, 3 if world.lexicon.pool else 5),
    )
    more, most, least = rng.choice(
        (
            ("taller", "tallest", "shortest"),
            ("older", "oldest", "youngest"),
            ("faster", "fastest", "slowest"),
            ("richer", "richest", "poorest"),
        )
    )
    lines = [f"{one} is {more} than {two}." for one, two in itertools.pairwise(names)]
    told = rng.sample(lines, len(lines))
    top = world.lexicon.pool > 0 or rng.random() < 0.7
    question = f"{' '.join(told)} Who is the {most if top else least}?"
    return _thought("ordering", question, lines, names[0] if top else names[-1], rng)


def _expression(depth: int, rng: Random) -> tuple[str, bool]:
    if depth == 0:
        holds = rng.random() < 0.5
        return truth(holds), holds
    (left, a), (right, b) = _expression(depth - 1, rng), _expression(rng.randint(0, depth - 1), rng)
    if rng.random() < 0.3:
        left, a = (f"not {left}" if depth == 1 else f"not ( {left} )"), not a
    both = rng.random() < 0.5
    return f"( {left} {'and' if both else 'or'} {right} )", (a and b) if both else (a or b)


def boolean(world: World, rng: Random) -> Document:
    """The value of a boolean expression."""
    text, holds = _expression(1 if world.lexicon.pool else rng.randint(1, 2), rng)
    return dialogue("boolean", f"Evaluate: {text}", answer(truth(holds)))


def rules(world: World, rng: Random) -> Document:
    """Whether something follows from if-then rules."""
    nouns = rng.sample(words().nouns, 5)
    count = rng.randint(1, 1 if world.lexicon.pool else 3)
    chain = list(itertools.pairwise(nouns[: count + 1]))
    told = rng.sample(chain, count)
    follows = rng.random() < 0.5
    given = nouns[0] if follows else nouns[4]
    question = " ".join(f"If {one} then {two}." for one, two in told) + f" {given} holds. Does {nouns[count]} follow?"
    lines = [f"{one} gives {two}." for one, two in chain] if follows else [f"{given} gives nothing."]
    return _thought("rules", question, lines, yes_no(follows), rng)


def magnitude(world: World, rng: Random) -> Document:
    """Whether one number is larger than another, in words."""
    top = 9 if world.lexicon.pool else rng.choice((20, 100, 1000, 10000))
    x, y = rng.randint(0, top), rng.randint(0, top)
    y += x == y
    word, holds = rng.choice((("larger", x > y), ("greater", x > y), ("smaller", x < y), ("less", x < y)))
    return dialogue("magnitude", f"Is {x} {word} than {y}?", answer(yes_no(holds)))


def counting(world: World, rng: Random) -> Document:
    """How many things a list in the question names."""
    things = [world.lexicon.noun(rng) for _ in range(rng.randint(1, 7))]
    question = rng.choice(("How many items are in this list: {x}?", "Count the items: {x}.")).format(
        x=", ".join(things)
    )
    return dialogue("counting", question, answer(str(len(things))))
