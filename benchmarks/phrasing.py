"""Questions about the demo modules, with the answers that the facts give: what the benchmarks ask.

The demo core reads the phrasings it was trained on, and these are of their kinds. Nothing here asks a model or a store.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

MODULES = ("geography", "elements", "companies", "people")
KNOWLEDGE = Path(__file__).parent.parent / "knowledge"
NUMERIC = ("founded", "birth year", "atomic number")

GENERAL = (
    "What is the {relation} of {subject}?",
    "What is {subject}'s {relation}?",
    "Tell me the {relation} of {subject}.",
    "Give the {relation} of {subject}.",
    "I want to know the {relation} of {subject}.",
    "For {subject}, what is the {relation}?",
)
REVERSE = ("Which entity has {v} as its {r}?", "Whose {r} is {v}?", "What has the {r} {v}?", "{v} is the {r} of what?")
SPECIFIC = {
    "capital": ("Which city is the capital of {subject}?", "Name the capital city of {subject}."),
    "continent": ("On which continent is {subject}?", "Which continent is {subject} part of?"),
    "currency": ("What money is used in {subject}?", "Which currency does {subject} use?"),
    "language": ("What language is spoken in {subject}?", "What is the main language in {subject}?"),
    "calling code": ("What is the dialing code for {subject}?", "Which phone prefix does {subject} have?"),
    "demonym": ("What do you call a person from {subject}?", "What are people from {subject} called?"),
    "symbol": ("What is the chemical symbol for {subject}?", "Which symbol stands for {subject}?"),
    "atomic number": ("How many protons does {subject} have?", "What number is {subject} in the periodic table?"),
    "ceo": ("Who runs {subject}?", "Who leads {subject}?", "Who is in charge of {subject}?"),
    "headquarters": ("Where is {subject} based?", "In which city is {subject}?"),
    "industry": ("What business is {subject} in?", "In which sector is {subject}?"),
    "founded": ("When was {subject} founded?", "Which year saw the founding of {subject}?"),
    "birthplace": ("Where was {subject} born?", "In which country was {subject} born?"),
    "birth year": ("When was {subject} born?", "In what year was {subject} born?"),
    "occupation": ("What does {subject} do for a living?", "What is the job of {subject}?"),
    "employer": ("Where does {subject} work?", "Who does {subject} work for?"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A fact of the demo modules."""

    subject: str
    relation: str
    value: str
    module: str


@dataclass(frozen=True, slots=True)
class Item:
    """A question, the answer that the facts give, and which kind of question it is."""

    kind: str
    question: str
    answer: str
    row: Row | None = None
    """For a one-hop question: the fact it asks for."""


def read_rows(folder: Path = KNOWLEDGE) -> list[Row]:
    """Read the demo modules."""
    rows = []
    for module in MODULES:
        for line in (folder / f"{module}.ndjson").read_text("utf-8").splitlines():
            fact = json.loads(line)
            rows.append(Row(fact["subject"], fact["relation"], fact["value"], module))
    return rows


class Asker:
    """Draws questions from rows, reproducibly."""

    def __init__(self, rows: Iterable[Row], seed: int) -> None:
        self._random = random.Random(seed)
        self.rows = list(rows)
        self._by_subject: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            self._by_subject[row.subject].append(row)
        self._holders = Counter((row.relation, row.value) for row in self.rows)

    def draw(self, kind: str) -> Item:
        """Draw one question of `kind`, a key of `KINDS`."""
        return KINDS[kind](self)

    def phrase(self, subject: str, relation: str) -> str:
        """Ask for one fact."""
        own = SPECIFIC.get(relation, ())
        form = self._random.choice(own if own and self._random.random() < 0.6 else GENERAL)
        return form.format(subject=subject, relation=relation)

    def one_hop(self) -> Item:
        """Ask for a fact."""
        row = self._random.choice(self.rows)
        return Item("one hop", self.phrase(row.subject, row.relation), row.value, row)

    def chain(self, hops: int) -> Item:
        """Ask for a fact about a fact's value, `hops` deep."""
        while True:
            path = [self._random.choice(self.rows)]
            while len(path) < hops and (nexts := self._by_subject.get(path[-1].value)):
                path.append(self._random.choice(nexts))
            if len(path) == hops:
                break
        asked = path[0].subject
        for row in path:
            asked = f"the {row.relation} of {asked}"
        form = self._random.choice(("What is {}?", "Tell me {}.", "Find {}.", "I want to know {}."))
        return Item(f"{'two' if hops == 2 else 'three'} hops", form.format(asked), path[-1].value)

    def reverse(self) -> Item:
        """Ask whose value it is, where that is one subject only."""
        while True:
            row = self._random.choice(self.rows)
            if self._holders[row.relation, row.value] == 1:
                break
        form = self._random.choice(
            (
                "Which entity has {v} as its {r}?",
                "Whose {r} is {v}?",
                "What has the {r} {v}?",
                "{v} is the {r} of what?",
            )
        )
        return Item("reverse", form.format(v=row.value, r=row.relation), row.subject)

    def comparison(self) -> Item:
        """Ask which of two numbers is larger or smaller, or whether one is."""
        one, other, relation = self._two_numbers()
        x, y = int(one.value), int(other.value)
        match self._random.randrange(3):
            case 0:
                asked, answer = f"Which has the larger {relation}, {one.subject} or {other.subject}?", x > y
            case 1:
                asked, answer = f"Which has the smaller {relation}, {one.subject} or {other.subject}?", x < y
            case _:
                asked = f"Is the {relation} of {one.subject} greater than the {relation} of {other.subject}?"
                return Item("comparison", asked, "yes" if x > y else "no")
        return Item("comparison", asked, (one if answer else other).subject)

    def arithmetic(self) -> Item:
        """Ask for a sum, a difference or a product of facts and numbers."""
        one, other, relation = self._two_numbers()
        x, y, n = int(one.value), int(other.value), self._random.randint(2, 50)
        of_one, of_other = f"the {relation} of {one.subject}", f"the {relation} of {other.subject}"
        asked, answer = self._random.choice(
            (
                (f"What is the sum of {of_one} and {of_other}?", x + y),
                (f"By how much does {of_one} exceed {of_other}?", x - y),
                (f"What is {n} times {of_one}?", x * n),
                (f"What is {of_one} plus {n}?", x + n),
                (f"What is {of_one} minus {n}?", x - n),
            )
        )
        return Item("arithmetic", asked, str(answer))

    def swap(self) -> Item:
        """Ask for a fact, with another value than it has: one that the relation has elsewhere."""
        item = self.one_hop()
        assert item.row is not None, "a one-hop question asks for a fact"
        others = sorted({row.value for row in self.rows if row.relation == item.row.relation} - {item.row.value})
        return Item("swap", item.question, self._random.choice(others), item.row)

    def absent(self, known: frozenset[str]) -> Item:
        """Ask about somebody who is in no module."""
        while True:
            template = self._random.choice(self.rows)
            words = [self._random.choice(self.rows).subject.split()[0], template.subject.split()[-1]]
            subject = " ".join(words) if " " in template.subject else words[0][::-1].capitalize()
            if subject.casefold() not in known:
                return Item("absent", self.phrase(subject, template.relation), "I don't know")

    def _two_numbers(self) -> tuple[Row, Row, str]:
        relation = self._random.choice(NUMERIC)
        rows = [row for row in self.rows if row.relation == relation]
        while True:
            one, other = self._random.sample(rows, 2)
            if one.value != other.value:
                return one, other, relation


KINDS: dict[str, Callable[[Asker], Item]] = {
    "one hop": Asker.one_hop,
    "two hops": lambda asker: asker.chain(2),
    "three hops": lambda asker: asker.chain(3),
    "reverse": Asker.reverse,
    "comparison": Asker.comparison,
    "arithmetic": Asker.arithmetic,
}


# --- Questions that need no fact. -----------------------------------------------------------------------------------

PEOPLE = ("Tom", "Ana", "Ben", "Eva", "Sam", "Lily", "Omar", "Nina", "Raj", "Mei", "Leo", "Ida", "Hugo", "Rosa")
THINGS = ("apples", "stamps", "coins", "books", "shells", "cards", "pencils", "stones")
ORDERS = (("taller", "tallest"), ("older", "oldest"), ("faster", "fastest"), ("richer", "richest"))


def draw_problem(random_: random.Random) -> Item:
    """Draw a word problem of one to three operations."""
    one, other = random_.sample(PEOPLE, 2)
    things = random_.choice(THINGS)
    a, b, c = random_.randint(21, 60), random_.randint(2, 20), random_.randint(2, 12)
    how_many = f"How many {things} does {one} have?"
    asked, answer = random_.choice(
        (
            (f"{one} has {a} {things}. {other} gives {one} {b} more. {how_many}", a + b),
            (f"{one} has {a} {things} and loses {b}. How many {things} are left?", a - b),
            (f"{one} buys {c} boxes of {things}. Each box holds {b}. How many {things} is that?", c * b),
            (f"{one} buys {c} boxes of {things} with {b} in each and finds {a} more. {how_many}", c * b + a),
            (f"{one} has {a} {things}. {other} has {c} times as many. How many do they have together?", a * c + a),
            (f"{one} shares {b * c} {things} equally among {c} friends. How many does each get?", b),
        )
    )
    return Item("problem", asked, str(answer))


def draw_logic(random_: random.Random) -> Item:
    """Draw an ordering, or a boolean expression."""
    if random_.random() < 0.5:
        people = random_.sample(PEOPLE, random_.randint(3, 5))
        more, most = random_.choice(ORDERS)
        pairs = [f"{x} is {more} than {y}." for x, y in pairwise(people)]
        random_.shuffle(pairs)
        return Item("logic", f"{' '.join(pairs)} Who is the {most}?", people[0])
    x, y = (random_.random() < 0.5 for _ in range(2))
    word = random_.choice(("and", "or"))
    truth = (x and y) if word == "and" else (x or y)
    return Item("logic", f"Evaluate: ( {str(x).lower()} {word} {str(y).lower()} )", str(truth).lower())


def draw_open_book(asker: Asker, random_: random.Random) -> Item:
    """Draw a question whose answer stands in it, as a value that no fact has."""
    row = random_.choice(asker.rows)
    others = sorted({it.value for it in asker.rows if it.relation == row.relation} - {row.value})
    told = random_.choice(others)
    asked = f"The {row.relation} of {row.subject} is {told}.\n{asker.phrase(row.subject, row.relation)}"
    return Item("open book", asked, told)
