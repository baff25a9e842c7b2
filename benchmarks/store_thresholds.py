"""Measures what a lookup takes for a match: wrong answers for facts that are gone, and misspelled names found.

    python -m benchmarks.store_thresholds [--facts 10000] [--embedder NAME]

A tenth of the facts is never imported, so that not even history knows it. Three worlds: the demo modules, names of
random syllables, and numbered names. The last line is JSON.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from knowledge_store.change import Change, FactChange
from knowledge_store.embed import DEFAULT, Embedder, embedder_named
from knowledge_store.fact import Fact
from knowledge_store.generation import Generation
from knowledge_store.lookup import Found
from knowledge_store.meaning import Thresholds, meant, thresholds_of
from knowledge_store.protocol import ValueQuery
from knowledge_store.store import Store

ROOT = Path(__file__).parents[1]
WORDINGS = {
    "capital": ("capital city", "seat of government", "the capital"),
    "currency": ("money", "unit of currency", "national currency"),
    "continent": ("part of the world", "which continent", "continental location"),
    "official language": ("spoken language", "state language", "language"),
    "population": ("number of inhabitants", "inhabitants", "population size"),
    "area": ("surface area", "size in square kilometres", "total area"),
    "president": ("head of state", "current president", "national president"),
    "birthplace": ("place of birth", "birth place", "where born"),
    "birth year": ("year of birth", "born in the year", "birthyear"),
    "death year": ("year of death", "died in the year", "deathyear"),
    "occupation": ("job", "profession", "occupations"),
    "employer": ("company worked for", "workplace", "employed by"),
    "spouse": ("husband or wife", "married to", "marriage partner"),
    "chief executive": ("CEO", "chief executive officer", "head of the company"),
    "founder": ("founded by", "who founded it", "company founder"),
    "founding year": ("year of foundation", "founded in the year", "year founded"),
    "headquarters": ("headquarter", "head office", "main office"),
    "industry": ("line of business", "sector", "branch of industry"),
    "revenue": ("yearly turnover", "sales in dollars", "annual revenue"),
    "employees": ("number of staff", "workforce size", "employee count"),
    "atomic number": ("number of protons", "atomic no.", "place in the periodic table"),
    "melting point": ("melting temperature", "temperature at which it melts", "melts at"),
    "boiling point": ("boiling temperature", "temperature at which it boils", "boils at"),
    "dose": ("dosage", "recommended dose", "how much to take"),
}
"""Relations of many fields, each in three other wordings; some lie near each other on purpose."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def load_demo_facts() -> list[Fact]:
    """Give the facts of the four demo modules."""
    return [
        Fact(**json.loads(line), module=path.stem)
        for path in sorted((ROOT / "knowledge").glob("*.ndjson"))
        for line in path.open(encoding="utf-8")
    ]


def make_syllable_facts(count: int, seed: int) -> list[Fact]:
    """Give facts about subjects of two words of random syllables, four relations each."""
    chance = random.Random(seed)
    syllables = [first + vowel + last for first in "bdfgklmnprstvz" for vowel in "aeiou" for last in ("", "n", "r")]
    facts: dict[tuple[str, str], Fact] = {}
    while len(facts) < count:
        words = ["".join(chance.choices(syllables, k=chance.randint(2, 3))).title() for _ in range(2)]
        for relation in ("capital", "founder", "birth year", "industry"):
            facts[" ".join(words), relation] = Fact(" ".join(words), relation, f"value {len(facts)}", "syllables")
    return list(facts.values())[:count]


def make_numbered_facts(count: int) -> list[Fact]:
    """Give facts about subjects that differ in a number only."""
    return [Fact(f"Subject {place}", "property", f"value {place}", "numbered") for place in range(count)]


def deleted_tenth(facts: Sequence[Fact], seed: int) -> tuple[list[Fact], list[Fact]]:
    """Split facts into nine tenths that are kept and one that is not."""
    shuffled = random.Random(seed).sample(list(facts), len(facts))
    return shuffled[len(facts) // 10 :], shuffled[: len(facts) // 10]


def misspell(name: str, chance: random.Random) -> str:
    """Make one slip in `name`, not in a digit."""
    places = [place for place, character in enumerate(name) if not character.isdigit()]
    place = chance.choice(places)
    letter = chance.choice(_LETTERS)
    match chance.randrange(4):
        case 0:
            return name[:place] + name[place + 1 :]
        case 1:
            return name[:place] + letter + name[place:]
        case 2:
            return name[:place] + letter + name[place + 1 :]
        case _:
            after = name[place + 1 : place + 2]
            return name[:place] + (after + name[place] if after and not after.isdigit() else "") + name[place + 2 :]


def measure_deleted(generation: Generation, deleted: Sequence[Fact]) -> float:
    """Give the share of facts that are not there and that are answered all the same, by another's value."""
    outcomes = [generation.lookup(ValueQuery(it.subject, it.relation)) for it in deleted]
    return sum(isinstance(it, Found) for it in outcomes) / len(deleted)


def measure_typos(generation: Generation, facts: Sequence[Fact], seed: int) -> float:
    """Give the share of facts that are found by a name with one slip."""
    chance = random.Random(seed)
    right = 0
    for it in facts:
        outcome = generation.lookup(ValueQuery(misspell(it.subject, chance), it.relation))
        right += isinstance(outcome, Found) and outcome.facts[0].value == it.value
    return right / len(facts)


def measure_world(facts: Sequence[Fact], seed: int) -> tuple[float, float]:
    """Give the share of wrong answers and of misspelled names found."""
    kept, deleted = deleted_tenth(facts, seed)
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "k.sqlite") as store:
        for module in sorted({it.module for it in kept}):
            store.commit(Change(module, "merge", [FactChange(it) for it in kept if it.module == module]))
        with store.generation() as head:
            return measure_deleted(head, deleted), measure_typos(head, kept, seed)


@dataclass(frozen=True)
class Likeness:
    """What an embedder makes of words for a relation at one acceptance threshold."""

    accept: float
    found: float
    wrong: float


def measure_relations(embedder: Embedder, margin: float) -> list[Likeness]:
    """Ask for relations in other words, of subjects that have them and of subjects that have all relations but them.

    `found` is the share of the former that led to the relation that was meant, `wrong` the share of all that led to
    another one.
    """
    names = list(WORDINGS)
    name_vectors = embedder.embed(names)
    asked = [(name, wording) for name, wordings in WORDINGS.items() for wording in wordings]
    scores = embedder.embed([wording for _, wording in asked]) @ name_vectors.T
    rows = []
    for accept in (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9):
        found = wrong = 0
        for (name, _), row in zip(asked, scores, strict=True):
            place = names.index(name)
            chosen = meant(row, Thresholds(accept, margin))
            found += chosen == [place]
            wrong += len(chosen) == 1 and chosen != [place]
            without = row.copy()
            without[place] = -1.0
            wrong += len(meant(without, Thresholds(accept, margin))) == 1
        rows.append(Likeness(accept, found / len(asked), wrong / (2 * len(asked))))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=10_000)
    parser.add_argument("--embedder", default=DEFAULT, help="the one whose likeness of relations is measured")
    given = parser.parse_args()
    count, embedder = given.facts, embedder_named(given.embedder)
    worlds = {
        "demo modules": load_demo_facts(),
        "syllables": make_syllable_facts(count, 1),
        "numbered": make_numbered_facts(count),
    }
    print(f"{'world':<14} {'facts':>7} {'wrong (<= 0.5 %)':>17} {'typos found (>= 95 %)':>22}")
    result: dict[str, dict[str, float]] = {}
    for name, facts in worlds.items():
        wrong, found = measure_world(facts, seed=11)
        result[name] = {"facts": len(facts), "wrong": wrong, "found": found}
        print(f"{name:<14} {len(facts):>7,} {wrong:>17.2%} {found:>22.2%}")
    limits = thresholds_of(embedder)
    print(f"\nrelations in other words, {embedder.name}; it takes {limits.accept} with a margin of {limits.margin}")
    print(f"{'accept from':>12} {'found':>7} {'wrong':>7}")
    relations = measure_relations(embedder, limits.margin)
    for row in relations:
        print(f"{row.accept:>12.2f} {row.found:>7.1%} {row.wrong:>7.2%}")
    print(json.dumps({"worlds": result, "embedder": embedder.name, "relations": [asdict(it) for it in relations]}))


if __name__ == "__main__":
    main()
