"""Generations: a commit makes one, a reader keeps the one it pinned, and every earlier one can be had again."""

from datetime import UTC, datetime, timedelta

import pytest

from knowledge_store.care import verify
from knowledge_store.change import Change, FactChange, Policy
from knowledge_store.declaration import Declaration
from knowledge_store.errors import (
    Contradiction,
    GenerationGone,
    InvalidChange,
    InvalidFact,
    ModuleNotMounted,
    PreconditionFailed,
    UnknownGeneration,
    UnknownModule,
)
from knowledge_store.fact import Fact
from knowledge_store.generation import Generation
from knowledge_store.lookup import Ambiguous, Found, MatchKind, Missing
from knowledge_store.protocol import parse_query
from knowledge_store.store import Store


def merge(module: str, *facts: tuple[str, str, str], delete: bool = False) -> Change:
    return Change(module, "merge", [FactChange(Fact(*fact, module), delete) for fact in facts])


def replace(module: str, *facts: tuple[str, str, str]) -> Change:
    return Change(module, "replace", [FactChange(Fact(*fact, module)) for fact in facts])


def ask(generation: Generation, query: str) -> str:
    return generation.lookup(parse_query(query)).text


def ask_head(store: Store, query: str) -> str:
    with store.generation() as head:
        return ask(head, query)


def test_a_commit_is_seen_by_the_next_reader_and_not_by_the_one_before(store: Store) -> None:
    store.commit(merge("geo", ("France", "capital", "Paris")))
    with store.generation() as before:
        report = store.commit(merge("geo", ("France", "capital", "Lyon")))
        assert (report.generation, report.changed, report.added) == (2, 1, 0)
        assert ask(before, "France | capital") == "Paris"
        assert ask_head(store, "France | capital") == "Lyon"


def test_the_same_change_twice_makes_no_generation(store: Store) -> None:
    change = merge("geo", ("France", "capital", "Paris"), ("Spain", "capital", "Madrid"))
    first = store.commit(change)
    again = store.commit(merge("geo", ("France", "capital", "Paris"), ("Spain", "capital", "Madrid")))
    assert (again.generation, again.unchanged, again.anything) == (1, 2, False)
    assert again.etag == first.etag
    replaced = store.commit(replace("geo", ("Spain", "capital", "Madrid"), ("France", "capital", "Paris")))
    assert (replaced.generation, replaced.unchanged) == (1, 2)


def test_a_replacement_leaves_just_what_it_holds(store: Store) -> None:
    store.commit(merge("geo", ("France", "capital", "Paris"), ("Spain", "capital", "Madrid"), ("Spain", "sea", "two")))
    report = store.commit(replace("geo", ("France", "capital", "Lyon"), ("Spain", "capital", "Madrid")))
    assert (report.added, report.changed, report.deleted, report.unchanged) == (0, 1, 1, 1)
    assert [ask_head(store, q) for q in ("France|capital", "Spain|capital", "Spain|sea")] == [
        "Lyon",
        "Madrid",
        "NOT FOUND",
    ]
    assert store.modules()[0].facts == 2


def test_a_deletion_with_a_value_takes_that_value_and_without_one_takes_all(store: Store) -> None:
    store.declare(Declaration("language", functional=False))
    store.commit(merge("geo", ("Belgium", "language", "Dutch"), ("Belgium", "language", "French")))
    assert ask_head(store, "Belgium | language") == "Dutch; French"
    assert store.commit(merge("geo", ("Belgium", "language", "Dutch"), delete=True)).deleted == 1
    assert ask_head(store, "Belgium | language") == "French"
    assert store.commit(merge("geo", ("Belgium", "language", ""), delete=True)).deleted == 1
    assert ask_head(store, "Belgium | language") == "NOT FOUND"
    assert store.commit(merge("geo", ("Belgium", "language", ""), delete=True)).anything is False


def test_the_last_word_of_a_change_counts(store: Store) -> None:
    fact = Fact("a", "b", "1", "m")
    store.commit(Change("m", "merge", [FactChange(fact), FactChange(fact, delete=True)]))
    assert ask_head(store, "a | b") == "NOT FOUND"
    store.commit(Change("m", "merge", [FactChange(fact, delete=True), FactChange(fact)]))
    assert ask_head(store, "a | b") == "1"


@pytest.mark.parametrize(
    ("says", "stands", "counts"),
    [
        ([("2", False), ("2", True)], "NOT FOUND", (0, 0, 1)),  # what a value took the place of does not come back
        ([("2", False), ("2", True), ("1", True)], "NOT FOUND", (0, 0, 1)),
        ([("2", False), ("1", False)], "1", (0, 0, 0)),
        ([("2", False), ("2", True), ("1", False)], "1", (0, 0, 0)),
        ([("2", False), ("3", False)], "3", (0, 1, 0)),
        ([("1", True), ("1", False)], "1", (0, 0, 0)),
    ],
)
def test_a_change_does_what_its_parts_would_one_after_the_other(
    store: Store, says: list[tuple[str, bool]], stands: str, counts: tuple[int, int, int]
) -> None:
    store.commit(merge("m", ("a", "b", "1"), ("other", "b", "1")))
    facts = [FactChange(Fact("a", "b", value, "m"), delete) for value, delete in says]
    report = store.commit(Change("m", "merge", facts))
    assert ask_head(store, "a | b") == stands
    assert (report.added, report.changed, report.deleted) == counts
    assert report.generation == (2 if any(counts) else 1)
    assert verify(store) == ()


def test_a_dry_run_counts_and_changes_nothing(store: Store) -> None:
    store.commit(merge("geo", ("France", "capital", "Paris")))
    report = store.commit(merge("geo", ("France", "capital", "Lyon"), ("Peru", "capital", "Lima")), dry_run=True)
    assert (report.changed, report.added, report.dry_run) == (1, 1, True)
    assert store.head == 1
    assert ask_head(store, "France | capital") == "Paris"


def test_a_reader_finds_a_generation_by_its_time(store: Store) -> None:
    store.commit(merge("geo", ("France", "capital", "Paris")))
    between = datetime.now(UTC)
    store.commit(merge("geo", ("France", "capital", "Lyon")))
    with store.generation(as_of=between) as then:
        assert (then.number, ask(then, "France | capital")) == (1, "Paris")
    with pytest.raises(UnknownGeneration, match="no generation yet"):
        store.generation(as_of=between - timedelta(days=1))
    with pytest.raises(UnknownGeneration, match="newest is 2"):
        store.generation(3)


def test_rollback_restores_the_deleted_fact_as_a_new_generation(store: Store) -> None:
    store.commit(merge("geo", ("France", "capital", "Paris"), ("Spain", "capital", "Madrid")))
    store.commit(merge("geo", ("France", "capital", ""), delete=True))
    store.commit(merge("geo", ("Spain", "capital", "Seville"), ("Peru", "capital", "Lima")))
    report = store.rollback("geo", 1)
    assert (report.generation, report.added, report.changed, report.deleted) == (4, 1, 1, 1)
    assert [ask_head(store, f"{it} | capital") for it in ("France", "Spain", "Peru")] == [
        "Paris",
        "Madrid",
        "NOT FOUND",
    ]
    assert store.modules()[0].facts == 2
    assert store.rollback("geo", 1).generation == 4
    with store.generation(3) as third:
        assert ask(third, "Spain | capital") == "Seville"


def test_rollback_crosses_a_replacement_and_a_drop(store: Store) -> None:
    store.commit(merge("geo", ("France", "capital", "Paris")))
    store.commit(replace("geo", ("Peru", "capital", "Lima")))
    store.drop_module("geo")
    assert store.modules() == ()
    store.rollback("geo", 1)
    assert [ask_head(store, f"{it} | capital") for it in ("France", "Peru")] == ["Paris", "NOT FOUND"]
    store.rollback("geo", 2)
    assert [ask_head(store, f"{it} | capital") for it in ("France", "Peru")] == ["NOT FOUND", "Lima"]


def test_an_etag_that_moved_refuses_the_commit(store: Store) -> None:
    etag = store.commit(merge("geo", ("France", "capital", "Paris"))).etag
    store.commit(merge("geo", ("France", "capital", "Lyon")), if_match=etag)
    with pytest.raises(PreconditionFailed, match="read it again"):
        store.commit(merge("geo", ("France", "capital", "Nice")), if_match=etag)
    assert ask_head(store, "France | capital") == "Lyon"
    with pytest.raises(PreconditionFailed):
        store.commit(merge("other", ("a", "b", "c")), if_match="*")


def test_a_module_of_lower_precedence_is_overridden_until_the_upper_is_unmounted(store: Store) -> None:
    store.commit(merge("base", ("France", "capital", "Paris"), ("Spain", "capital", "Madrid")))
    store.commit(merge("patch", ("France", "capital", "Lyon")))
    assert ask_head(store, "France | capital") == "Paris"
    store.mount("patch", precedence=0)
    assert ask_head(store, "France | capital") == "Lyon"
    assert ask_head(store, "? | capital | Paris") == "NOT FOUND"
    assert ask_head(store, "Spain | capital") == "Madrid"
    with store.generation(modules=["base", "patch"]) as chosen:
        assert ask(chosen, "France | capital") == "Paris"
    store.unmount("patch")
    assert ask_head(store, "France | capital") == "Paris"
    with pytest.raises(ModuleNotMounted):
        store.generation(modules=["patch"])
    with pytest.raises(UnknownModule):
        store.generation(modules=["nowhere"])


def test_several_modules_change_in_one_generation_or_not_at_all(store: Store) -> None:
    reports = store.commit_all([merge("one", ("a", "b", "1")), merge("two", ("c", "d", "2"))])
    assert [report.generation for report in reports] == [1, 1]
    with pytest.raises(InvalidChange):
        store.commit_all([merge("one", ("a", "b", "9")), merge("two", ("c", " ", "9"))])
    assert ask_head(store, "a | b") == "1"


def test_history_says_who_when_and_what(store: Store) -> None:
    store.commit(merge("geo", ("France", "capital", "Paris")), author="ada")
    store.commit(merge("geo", ("France", "capital", "Lyon")), author="bob")
    store.unmount("geo", author="eve")
    told = [(it.generation, it.author, it.operation, it.added, it.changed) for it in store.history()]
    assert told == [(3, "eve", "unmount", 0, 0), (2, "bob", "merge", 0, 1), (1, "ada", "merge", 1, 0)]
    assert [it.generation for it in store.history(module="geo", limit=1, before=3)] == [2]


def test_the_difference_of_two_generations_pairs_what_changed(store: Store) -> None:
    store.commit(merge("geo", ("France", "capital", "Paris"), ("Spain", "capital", "Madrid")))
    store.commit(replace("geo", ("France", "capital", "Lyon"), ("Peru", "capital", "Lima")))
    with store.difference("geo", 1, 2) as found:
        pairs = {(it.before and it.before.value, it.after and it.after.value) for it in found}
    assert pairs == {("Paris", "Lyon"), ("Madrid", None), (None, "Lima")}


def test_redaction_erases_from_all_history_and_leaves_a_tombstone(store: Store) -> None:
    store.commit(merge("people", ("Ann", "phone", "555-0199"), ("Ann", "age", "40")))
    store.commit(merge("people", ("Ann", "phone", "555-0000")))
    assert store.redact(Fact("ann", "Phone", "", "people"), author="officer") == 2
    for number in (1, 2, 3):
        with store.generation(number) as then:
            assert ask(then, "Ann | phone") == "NOT FOUND"
            assert ask(then, "Ann | age") == "40"
    assert store.modules()[0].facts == 1
    assert (store.history()[0].operation, store.history()[0].author) == ("redact", "officer")


def test_compaction_drops_what_nobody_reads_and_keeps_the_head(store: Store) -> None:
    for value in "123":
        store.commit(merge("m", ("a", "b", value), ("only", "in", value)))
    store.commit(replace("m", ("a", "b", "4")))
    with store.generation(3):
        report = store.compact(timedelta(0), grace=timedelta(0))
        assert (report.oldest, report.facts) == (3, 4)
    report = store.compact(timedelta(0), grace=timedelta(0))
    assert (report.oldest, report.facts, report.layers) == (4, 2, 1)
    assert ask_head(store, "a | b") == "4"
    with pytest.raises(GenerationGone, match="oldest kept is 4"):
        store.generation(3)


def test_a_young_generation_survives_compaction(store: Store) -> None:
    store.commit(merge("m", ("a", "b", "1")))
    store.commit(merge("m", ("a", "b", "2")))
    assert store.compact(timedelta(0)).facts == 0
    with store.generation(1) as first:
        assert ask(first, "a | b") == "1"


def test_the_world_s_time_decides_which_value_holds_today(store: Store) -> None:
    facts = [
        Fact("France", "president", "Macron", "m", valid_from="2017-05-14"),
        Fact("France", "president", "Hollande", "m", valid_from="2012-05-15", valid_to="2017-05-14"),
    ]
    report = store.commit(Change("m", "merge", map(FactChange, facts)))
    assert (report.added, report.conflicts) == (2, ())
    assert ask_head(store, "France | president") == "Macron"


@pytest.mark.parametrize("policy", Policy)
def test_a_contradiction_within_a_change_follows_the_module_s_policy(store: Store, policy: Policy) -> None:
    store.commit(merge("m", ("x", "y", "z")))
    store.set_policy("m", policy)
    change = Change(
        "m",
        "merge",
        [
            FactChange(Fact("Ann", "birthplace", "Oslo", "m", source="register")),
            FactChange(Fact("Ann", "birthplace", "Bergen", "m", source="blog")),
        ],
    )
    if policy is Policy.REJECT:
        with pytest.raises(Contradiction, match="Ann") as caught:
            store.commit(change)
        assert {caught.value.conflicts[0].kept.source, caught.value.conflicts[0].other.source} == {"register", "blog"}
        assert ask_head(store, "Ann | birthplace") == "NOT FOUND"
        return
    report = store.commit(change)
    conflict = report.conflicts[0]
    assert {conflict.kept.source, conflict.other.source} == {"register", "blog"}
    assert {conflict.kept_line, conflict.other_line} == {1, 2}
    with store.generation() as head:
        outcome = head.lookup(parse_query("Ann | birthplace"))
    if policy is Policy.NEWEST:
        assert isinstance(outcome, Found)
        assert (outcome.text, conflict.kept.value) == ("Bergen", "Bergen")
    else:
        assert isinstance(outcome, Ambiguous)
        assert (outcome.text, {it.value for it in outcome.facts}) == ("NOT FOUND", {"Oslo", "Bergen"})


def test_a_contradiction_of_the_store_follows_the_policy_too(store: Store) -> None:
    store.commit(merge("m", ("Ann", "birthplace", "Oslo")))
    store.set_policy("m", Policy.REJECT)
    with pytest.raises(Contradiction):
        store.commit(merge("m", ("Ann", "birthplace", "Bergen")))
    store.set_policy("m", Policy.KEEP)
    report = store.commit(merge("m", ("Ann", "birthplace", "Bergen")))
    assert (report.added, len(report.conflicts)) == (1, 1)
    with store.generation() as head:
        assert isinstance(head.lookup(parse_query("Ann | birthplace")), Ambiguous)


def test_invalid_facts_are_all_named_and_nothing_is_kept(store: Store) -> None:
    facts = [("a", "b", "c"), ("", "b", "c"), ("a", "b\0", "c"), ("a", "b", "\ud800"), ("a", "b", "x" * 5_000_000)]
    with pytest.raises(InvalidChange) as caught:
        store.commit(merge("m", *facts))
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4, 5]
    assert store.head == 0
    for name in ("../etc", "a/b", "", ".hidden", "x" * 101, "a:b", "a\n"):
        with pytest.raises(InvalidFact, match="no module can be called"):
            store.commit(merge(name, ("a", "b", "c")))


def test_a_declared_inverse_and_aliases_are_ways_to_the_same_fact(store: Store) -> None:
    store.declare(Declaration("capital", aliases=("seat of government",), inverse="capital of"))
    facts = [
        Fact("United States", "capital", "Washington", "m", aliases=("USA", "America")),
        Fact("United States", "currency", "dollar", "m"),
    ]
    store.commit(Change("m", "merge", map(FactChange, facts)))
    with store.generation() as head:
        for query, text in {
            "usa | capital": "Washington",
            "America | currency": "dollar",
            "United States | Seat of Government": "Washington",
            "Washington | capital of": "United States",
            "USA | ?": "capital: Washington; currency: dollar",
        }.items():
            outcome = head.lookup(parse_query(query))
            assert isinstance(outcome, Found), query
            assert (outcome.match, outcome.text) == (MatchKind.ALIAS, text)


def test_pages_go_on_where_the_last_one_ended(store: Store) -> None:
    store.commit(merge("m", *((f"s{i}", "r", "v") for i in range(25))))
    seen, cursor = [], None
    with store.generation() as head:
        while True:
            page = head.facts(relation="R", value="v", limit=10, cursor=cursor)
            seen += [it.subject for it in page.facts]
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == [f"s{i}" for i in range(25)]
        with pytest.raises(InvalidFact):
            head.facts(cursor="none of ours")
        with pytest.raises(UnknownModule):
            head.facts(module="nowhere")
        assert isinstance(head.lookup(parse_query("s1 | other")), Missing)


def test_another_store_on_the_same_database_sees_a_commit_at_once(store: Store, location: str) -> None:
    with Store.open(location) as other:
        store.commit(merge("m", ("a", "b", "1")))
        assert ask_head(other, "a | b") == "1"
        other.commit(merge("m", ("a", "b", "2"), ("new", "relation here", "x")))
        assert ask_head(store, "a | b") == "2"
        assert ask_head(store, "new | relation here") == "x"
