"""A lookup finds a misspelled name, guesses nothing else, and says how it matched."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.store_thresholds import deleted_tenth, load_demo_facts, measure_deleted, measure_typos
from knowledge_store.change import Change, FactChange
from knowledge_store.fact import Fact
from knowledge_store.generation import Generation
from knowledge_store.lookup import Ambiguous, Found, MatchKind, Missing
from knowledge_store.protocol import RelationsQuery, TextQuery, ValueQuery, parse_query
from knowledge_store.spelling import half_keys, halves, middle_swapped, one_edit_apart
from knowledge_store.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generation]:
    with Store.open(tmp_path_factory.mktemp("world") / "k.sqlite") as store:
        for path in sorted((ROOT / "knowledge").glob("*.ndjson")):
            facts = [FactChange(Fact(**json.loads(line), module=path.stem)) for line in path.open()]
            store.commit(Change(path.stem, "merge", facts))
        assert store.index().current
        with store.generation() as head:
            yield head


@pytest.mark.parametrize(
    ("query", "text", "match"),
    [
        ("  FRANCE |  Capital ", "Paris", MatchKind.EXACT),
        ("? | capital | paris", "France", MatchKind.EXACT),
        ("? | captial | Paris", "France", MatchKind.SPELLING),
        ("? | capitals | Paris", "France", MatchKind.SPELLING),
        ("? | the capital | Paris", "France", MatchKind.SEMANTIC),
        ("Frence | capital", "Paris", MatchKind.SPELLING),
        ("Farnce | capital", "Paris", MatchKind.SPELLING),
        ("France | captial", "Paris", MatchKind.SPELLING),
        ("Jeathea Lab | ceo", "Dorgrea Sandrem", MatchKind.SPELLING),
        ("France | capitals", "Paris", MatchKind.SPELLING),
        ("the capital of France", "Paris", MatchKind.SEMANTIC),
        ("What is the calling code of Spain?", "34", MatchKind.SEMANTIC),
        ("headquarters of Jeathea Labbs", "Wellington", MatchKind.SEMANTIC),
        ("France's capital", "Paris", MatchKind.SEMANTIC),
        (
            f"{'please, if you can, do tell me ' * 3} what the capital of France's neighbours' France is",
            "Paris",
            MatchKind.SEMANTIC,
        ),
    ],
)
def test_a_query_is_answered_and_says_how_it_matched(
    world: Generation, query: str, text: str, match: MatchKind
) -> None:
    outcome = world.lookup(parse_query(query))
    assert isinstance(outcome, Found), outcome
    assert outcome.match is match
    assert outcome.text.lstrip("+") == text
    assert 0.5 < outcome.score <= 1.0


@pytest.mark.parametrize(
    "query",
    [
        "Francia | capital",
        "France | ceo",
        "? | ceo | Paris",
        "? | melting | Paris",
        "Frence | ceo",
        "Atlantis | capital",
        "the capital of Atlantis",
        "hello",
        "He | x",
    ],
)
def test_what_is_not_there_is_missing(world: Generation, query: str) -> None:
    assert world.lookup(parse_query(query)).text == "NOT FOUND"


def test_all_relations_of_a_subject_are_listed(world: Generation) -> None:
    outcome = world.lookup(RelationsQuery("hydrogen"))
    assert outcome.text == "symbol: H; atomic number: 1"


def small(store: Store, *facts: tuple[str, str, str]) -> None:
    store.commit(Change("m", "merge", [FactChange(Fact(*it, "m")) for it in facts]))


def test_two_near_names_are_ambiguous_and_the_core_reads_not_found(store: Store) -> None:
    small(store, ("John Smith", "age", "40"), ("John Smyth", "age", "50"))
    with store.generation() as head:
        outcome = head.lookup(ValueQuery("John Smeth", "age"))
    assert isinstance(outcome, Ambiguous)
    assert (outcome.text, len(outcome.facts)) == ("NOT FOUND", 2)


def test_a_number_is_never_a_slip_of_the_pen(store: Store) -> None:
    small(store, ("Apollo 11", "crew", "Armstrong"))
    with store.generation() as head:
        assert isinstance(head.lookup(ValueQuery("Apollo 12", "crew")), Missing)
        assert isinstance(head.lookup(ValueQuery("Apolo 11", "crew")), Found)


def test_a_deleted_subject_is_not_taken_for_its_neighbour(store: Store) -> None:
    small(store, ("Iran", "capital", "Tehran"), ("Iraq", "capital", "Baghdad"))
    small_delete = FactChange(Fact("Iran", "capital", "", "m"), delete=True)
    store.commit(Change("m", "merge", [small_delete]))
    with store.generation() as head:
        assert isinstance(head.lookup(ValueQuery("Iran", "capital")), Missing)
        assert isinstance(head.lookup(TextQuery("capital of Iran")), Missing)


def test_of_near_subjects_the_relation_nearest_to_the_words_is_suggested(world: Generation) -> None:
    outcome = world.lookup(TextQuery("the capital of Fransylvania"))
    assert isinstance(outcome, Missing)
    assert "capital" in {it.relation for it in outcome.suggestions}


def test_every_single_edit_of_a_name_is_found_by_one_of_its_halves() -> None:
    chance = random.Random(3)
    letters = "abcdefgh "
    for _ in range(3_000):
        name = "".join(chance.choice("abcdefgh") for _ in range(chance.randint(4, 14)))
        place = chance.randrange(len(name))
        typo = chance.choice(
            [
                name[:place] + name[place + 1 :],
                name[:place] + chance.choice(letters) + name[place:],
                name[:place] + chance.choice(letters) + name[place + 1 :],
                name[: place - 1] + name[place] + name[place - 1] + name[place + 1 :] if place else name,
            ]
        )
        if not one_edit_apart(name, typo):
            continue
        heads, tails = half_keys(typo)
        head, tail = halves(name)
        assert head in heads or tail in tails or middle_swapped(typo) == name, (name, typo)


def test_near_misses_are_not_passed_off_as_hits_and_typos_are_found(tmp_path: Path) -> None:
    kept, deleted = deleted_tenth(load_demo_facts(), seed=5)
    with Store.open(tmp_path / "k.sqlite") as store:
        for module in {it.module for it in kept}:
            store.commit(Change(module, "merge", [FactChange(it) for it in kept if it.module == module]))
        with store.generation() as head:
            wrong = measure_deleted(head, deleted)
            found = measure_typos(head, kept[:1_500], seed=6)
    assert wrong <= 0.005
    assert found >= 0.95
