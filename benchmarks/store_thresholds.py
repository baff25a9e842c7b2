"""Measures what a lookup takes for a match: wrong answers for facts that are gone, and misspelled names found.

    python -m benchmarks.store_thresholds [--facts 10000]

A tenth of the facts is never imported, so that not even history knows it. Three worlds: the demo modules, names of
random syllables, and numbered names. The last line is JSON.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from knowledge_store.change import Change, FactChange
from knowledge_store.embed import NgramEmbedder
from knowledge_store.fact import Fact
from knowledge_store.generation import Generation
from knowledge_store.lookup import Found
from knowledge_store.protocol import ValueQuery
from knowledge_store.store import Store

ROOT = Path(__file__).parents[1]
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


def measure_relations() -> list[tuple[str, str, float]]:
    """Give the likeness, by the default embedder, of words for a relation: what is meant and what is not."""
    pairs = [
        ("birth place", "birthplace"),
        ("headquarter", "headquarters"),
        ("capital city", "capital"),
        ("year of birth", "birth year"),
        ("birth date", "birth year"),
        ("birth year", "birthplace"),
        ("currency", "current"),
        ("founder", "founded"),
        ("population", "occupation"),
    ]
    embedder = NgramEmbedder()
    return [(one, other, float((embedder.embed([one]) @ embedder.embed([other]).T)[0, 0])) for one, other in pairs]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=10_000)
    count = parser.parse_args().facts
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
    print("\nlikeness of relations (taken for meant from 0.75 on, if the next one is 0.10 behind)")
    for one, other, score in measure_relations():
        print(f"  {one:<14} {other:<14} {score:.2f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
