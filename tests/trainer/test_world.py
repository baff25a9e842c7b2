"""The demo world: wide, deterministic, honest about what is held out, and never telling a target fact."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from knowledge_store.key import normalise
from knowledge_store.protocol import (
    CallKind,
    SubjectQuery,
    ValueQuery,
    parse_query,
    parse_turn,
    parse_values,
    render_turn,
)
from tests.trainer.tiny import tiny_pretraining
from trainer.errors import ConfigError
from trainer.fact import Target, read_targets
from trainer.rollout import calculate
from trainer.sources import pretraining_world
from trainer.world.corpus import BASE_MIXTURE, LOGIC_MIXTURE, MAKERS, emphasised, mixture
from trainer.world.document import Claim, Exchange, answer, dialogue, need
from trainer.world.lexicon import Lexicon, words
from trainer.world.noise import roughen
from trainer.world.phrasing import read_phrasings
from trainer.world.world import World, leaks, stand_in

KNOWLEDGE = Path(__file__).parents[2] / "knowledge"


@pytest.fixture(scope="module")
def world() -> World:
    facts = read_targets(sorted(KNOWLEDGE.glob("*.ndjson"))).facts
    return World(facts, read_phrasings(), Lexicon(), real_share=0.3)


def test_every_relation_has_thirty_phrasings(world: World) -> None:
    for relation in (*world.by_relation, *words().relations, "acorn", "acorn anchor"):
        assert len(set(world.phrasings.questions(relation))) >= 30, relation


def test_everyday_relations_have_questions_of_their_own_and_no_two_share_one(world: World) -> None:
    everyday = [relation for relation in words().relations if relation in world.phrasings.relations]
    frames = world.phrasings.questions("acorn")
    assert len(everyday) >= 35
    owned: Counter[str] = Counter()
    for relation in (*everyday, *world.by_relation):
        questions, nouns = world.phrasings.questions(relation), world.phrasings.nouns(relation)
        own = questions[: len(questions) - len(frames) * len(nouns)]
        owned.update(own)
        assert len(own) >= 3, relation  # a frame with one of its nouns may say the same
    assert max(owned.values()) == 1
    named = Counter(noun for relation in (*everyday, *world.by_relation) for noun in world.phrasings.nouns(relation))
    assert max(named.values()) == 1
    assert not {noun for relation in everyday for noun in world.phrasings.nouns(relation)[1:]} & {*words().relations}


def test_drawn_relations_are_asked_for_in_everyday_words(world: World) -> None:
    seen: Counter[str] = Counter()
    said = {
        "Who owns ": "owner", "How tall is ": "height", "Who wrote ": "author", "How heavy is ": "weight",
        "What does {} own?": "owner", "Whom do friends call ": "nickname", " owners ": "owner", " taller": "height",
        " cheaper": "price", "number of employees of": "headcount",
    }  # fmt: skip
    for kind in (kind for kind in MAKERS if kind.startswith("memory/")):
        for seed in range(4000):
            document = MAKERS[kind](world, Random(seed))
            question = document.exchanges[0].question
            for text, relation in said.items():
                first, last = text.split("{}") if "{}" in text else (text, "")
                if first in question and question.endswith(last):
                    seen[text] += 1
                    calls = [call.body for step in document.exchanges[0].turn.steps for call in step.calls]
                    assert any(relation in call.split(" | ") for call in calls), question
    assert set(seen) == set(said), seen


def test_a_small_world_words_what_is_no_target_by_the_frames_alone(world: World) -> None:
    small = replace(world, lexicon=Lexicon(pool=60))
    plain = replace(small, phrasings=world.phrasings.plain)
    for kind in ("memory/one_hop", "memory/unprompted", "memory/check", "memory/listing", "memory/compare"):
        for seed in range(200):
            assert MAKERS[kind](small, Random(seed)) == MAKERS[kind](plain, Random(seed))


def test_comparatives_say_which_is_which(world: World) -> None:
    more, less = ("taller", "heavier", "deeper"), ("shorter", "lighter", "shallower")
    asked = 0
    for seed in range(4000):
        document = MAKERS["memory/compare"](world, Random(seed))
        (exchange,), (one, two) = document.exchanges, document.claims
        found = [word for word in (*more, *less) if re.search(rf" {word}\b", exchange.question)]
        if not found or one.relation not in {"height", "weight", "depth"}:
            continue
        asked += 1
        larger, smaller = sorted((one, two), key=lambda claim: -int(claim.value))
        if exchange.turn.answer in {"yes", "no"}:
            assert (exchange.turn.answer == "yes") == (larger == one)
            assert exchange.question.index(one.subject) < exchange.question.index(found[0])
        else:
            assert exchange.turn.answer == (larger if found[0] in more else smaller).subject
    assert asked > 100


def test_the_reading_that_the_gate_draws_is_worded_as_before_everyday_words_came(world: World) -> None:
    plain = replace(world, phrasings=world.phrasings.plain)
    relations = set()
    for seed in range(600):
        document = MAKERS["reading/open_book"](world, Random(seed))
        assert document == MAKERS["reading/open_book"](plain, Random(seed))
        relations |= {claim.relation for claim in document.claims}
    assert len(relations & set(world.phrasings.relations) - set(world.by_relation)) > 30


@pytest.mark.parametrize("kind", ["memory/one_hop", "reading/open_book"])
def test_everyday_wording_of_a_target_is_held_out_like_any_other(kind: str) -> None:
    facts = tuple(Target(f"Haus{number}", "owner", f"Frau{number % 7}", "m") for number in range(20))
    world = World(facts, read_phrasings(), Lexicon(), real_share=1.0)
    held, trained = (
        {
            text.replace("{subject}", fact.subject)
            for fact in facts
            for text in world.phrasings.questions("owner")
            if world.phrasings.is_held_out(*fact.key, text) is held_out
        }
        for held_out in (True, False)
    )
    asked = {MAKERS[kind](world, Random(seed)).exchanges[0].question.split("\n")[-1] for seed in range(3000)}
    assert len(asked & trained) > 100
    assert not asked & held
    assert any(text.startswith("Who owns Haus") for text in held)
    assert any(text.startswith("Who owns Haus") for text in asked)


def test_every_fact_has_a_wording_to_train_and_one_that_is_held_out(world: World) -> None:
    for fact in world.facts[::7]:
        held = [world.phrasings.is_held_out(*fact.key, text) for text in world.phrasings.questions(fact.relation)]
        assert any(held)
        assert not all(held)


def test_about_a_fifth_of_the_wording_is_held_out(world: World) -> None:
    held = [
        world.phrasings.is_held_out(*fact.key, text)
        for fact in world.facts[::50]
        for text in world.phrasings.questions(fact.relation)
    ]
    assert 0.17 < sum(held) / len(held) < 0.24


def test_a_training_question_is_never_worded_as_held_out(world: World) -> None:
    rng = Random(0)
    for fact in world.facts[::40]:
        held_out = {
            text.replace("{subject}", fact.subject)
            for text in world.phrasings.questions(fact.relation)
            if world.phrasings.is_held_out(*fact.key, text)
        }
        for _ in range(10):
            assert world.phrasings.ask(*fact.key, rng) not in held_out
            assert world.phrasings.ask(*fact.key, rng, held_out=True) in held_out


@pytest.mark.parametrize("kind", MAKERS)
def test_a_kind_of_document_is_deterministic_and_speaks_the_protocol(world: World, kind: str) -> None:
    for seed in range(40):
        document = MAKERS[kind](world, Random(seed))
        assert document == MAKERS[kind](world, Random(seed))
        assert document.prose or document.exchanges
        for exchange in document.exchanges:
            assert exchange.question
            assert parse_turn(render_turn(exchange.turn)) == exchange.turn


def test_every_call_of_a_document_can_be_answered_and_every_sum_is_right(world: World) -> None:
    chosen, rng = mixture(LOGIC_MIXTURE, fact_free=True), Random(1)
    seen: Counter[CallKind] = Counter()
    for _ in range(1500):
        for exchange in chosen.draw(world, rng).exchanges:
            for call in (call for step in exchange.turn.steps for call in step.calls):
                seen[call.kind] += 1
                if call.kind is CallKind.LOOKUP:
                    parse_query(call.body)
                else:
                    assert call.reply == calculate(call.body), call
    assert seen[CallKind.LOOKUP] > 500
    assert seen[CallKind.CALC] > 200


PREMISES = ("older", "after", "later", "exceed", "left")


@pytest.mark.parametrize("pool", [0, 60])
def test_a_question_that_takes_one_to_be_older_or_larger_is_right_about_it(world: World, pool: int) -> None:
    pooled, seen = replace(world, lexicon=Lexicon(pool=pool)), Counter[str]()
    for kind in ("memory/years_between", "memory/arithmetic", "memory/story"):
        for seed in range(2500):
            document = MAKERS[kind](pooled, Random(seed))
            (exchange,) = document.exchanges
            said = [word for word in PREMISES if re.search(rf"\b{word}\b", exchange.question)]
            if not said:
                continue
            seen[said[0]] += 1
            assert exchange.turn.answer is not None
            assert int(exchange.turn.answer) >= 0, exchange.question
            if len(document.claims) == 2:
                numbers = {claim.subject: int(claim.value) for claim in document.claims}
                first, second = sorted(numbers, key=lambda name: exchange.question.index(name))
                gap = numbers[first] - numbers[second]
                assert int(exchange.turn.answer) == (gap if said[0] == "exceed" else -gap), exchange.question
    assert all(seen[word] > 50 for word in PREMISES), seen


@pytest.mark.parametrize("kind", ["memory/compare", "memory/order_in_time", "memory/years_between", "memory/same"])
def test_two_that_are_compared_are_two(world: World, kind: str) -> None:
    few = replace(world, lexicon=Lexicon(pool=8))
    for seed in range(500):
        claims = MAKERS[kind](few, Random(seed)).claims
        assert len({claim.subject for claim in claims}) == len(claims)


def test_fact_free_documents_never_state_a_target_fact(world: World) -> None:
    chosen, rng = mixture(LOGIC_MIXTURE, fact_free=True), Random(2)
    real = 0
    for _ in range(3000):
        document = chosen.draw(world, rng)
        assert not leaks(world, document.claims)
        real += any(claim.subject in world.by_subject for claim in document.claims)
    assert real > 300, "real subjects do occur, with counterfactual values"


@pytest.mark.parametrize("kind", ["memory/check", "reading/open_check"])
def test_a_fact_free_check_never_names_the_true_value(kind: str) -> None:
    lexicon = Lexicon(pool=8)
    values = [lexicon.name(Random(number)) for number in range(10)]
    facts = tuple(Target(f"Town {number}", "region", value, "m") for number, value in enumerate(values))
    world = World(facts, read_phrasings(), lexicon, real_share=1.0)
    chosen, rng = mixture({kind: 1.0}, fact_free=True, rough_share=0.0), Random(6)
    named = {
        check.replace("{subject}", fact.subject).replace("{value}", fact.value)
        for fact in facts
        for check in world.phrasings.checks(fact.relation)
    }
    real = 0
    for _ in range(2000):
        question = chosen.draw(world, rng).exchanges[0].question
        assert question.split("\n")[-1] not in named
        real += any(fact.subject in question for fact in facts)
    assert real > 1000


def test_a_leak_would_be_seen(world: World) -> None:
    fact = world.facts[0]
    assert leaks(world, [Claim(fact.subject, fact.relation, fact.value)])


def test_the_base_reads_facts_and_the_logic_stream_none_of_the_kinds_that_state_them() -> None:
    assert any(kind.startswith("facts/") for kind in BASE_MIXTURE)
    assert not any(kind.startswith("facts/") for kind in LOGIC_MIXTURE)
    assert set(MAKERS) == set(BASE_MIXTURE)


def test_unknown_kinds_and_patterns_that_match_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown kinds"):
        mixture({"logic/nonsense": 1.0}, fact_free=True)
    with pytest.raises(ConfigError, match="no kind of document matches"):
        mixture(LOGIC_MIXTURE, patterns=("x/*",), fact_free=True)


def test_emphasis_makes_the_kinds_that_a_pattern_names_so_many_times_as_frequent(world: World) -> None:
    scaled = emphasised(LOGIC_MIXTURE, {"logic/problem_*": 10.0})
    assert all(
        scaled[kind] == weight * (10 if kind.startswith("logic/problem_") else 1)
        for kind, weight in LOGIC_MIXTURE.items()
    )
    plain, loud = mixture(LOGIC_MIXTURE, fact_free=True), mixture(scaled, fact_free=True)
    counts = [
        sum(mixed.draw(world, Random(seed)).kind.startswith("problem_") for seed in range(300))
        for mixed in (plain, loud)
    ]
    assert counts[1] > 3 * counts[0] > 0
    with pytest.raises(ConfigError, match="no kind of document matches logic/sums"):
        emphasised(LOGIC_MIXTURE, {"logic/sums": 2.0})


def test_names_of_pieces_spell_what_syllables_never_do() -> None:
    pieces = ("Ida", "gab", "agua")
    plain, pieced = Lexicon(), Lexicon(pieces=pieces, pieced=0.5)
    drawn = [[lexicon.name(Random(seed)) for seed in range(400)] for lexicon in (plain, pieced)]
    made = [[name for name in names if not re.sub("|".join(pieces), "", name)] for names in drawn]
    assert not made[0]
    assert 140 < len(made[1]) < 260
    assert all(any(piece in name for name in made[1]) for piece in pieces)


def test_a_stand_in_has_the_shape_of_the_subject_and_is_nobody(world: World) -> None:
    rng = Random(3)
    for fact in world.facts[::100]:
        nobody = stand_in(fact, world.lexicon, rng)
        assert len(nobody.split()) == len(fact.subject.split())
        assert nobody not in world.by_subject


def test_rough_questions_keep_the_names_and_the_turn(world: World) -> None:
    changed = lowered = 0
    for seed in range(400):
        document = MAKERS["memory/one_hop"](world, Random(seed))
        rough = roughen(document, Random(seed), share=1.0)
        claim = document.claims[0]
        changed += rough != document
        if rough.exchanges[0].turn == document.exchanges[0].turn:
            assert claim.subject in rough.exchanges[0].question
        else:
            lowered += 1
            assert rough.exchanges == (
                Exchange(
                    document.exchanges[0].question.lower(),
                    answer(claim.value, need(replace(claim, subject=claim.subject.lower()))),
                ),
            )
    assert changed > 300
    assert 10 < lowered < 60


@pytest.mark.parametrize("rough_share", [0.0, 1.0])
def test_every_name_that_is_looked_up_stands_in_the_text_before(world: World, rough_share: float) -> None:
    chosen, rng = mixture(LOGIC_MIXTURE, fact_free=True, rough_share=rough_share), Random(5)
    seen: Counter[str] = Counter()
    for _ in range(5000):
        document, text = chosen.draw(world, rng), ""
        for exchange in document.exchanges:
            text += f"{exchange.question}\n"
            for call in (call for step in exchange.turn.steps for call in step.calls):
                if call.kind is CallKind.LOOKUP:
                    query = parse_query(call.body)
                    assert isinstance(query, ValueQuery | SubjectQuery)
                    name = query.subject if isinstance(query, ValueQuery) else query.value
                    assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text), (text, name)
                    seen[document.kind] += 1
                    text += f"{'; '.join(parse_values(call.reply or ''))}\n"
    assert set(seen) == {kind.removeprefix("memory/") for kind in LOGIC_MIXTURE if kind.startswith("memory/")}
    assert sum(seen.values()) > 3000


def test_what_is_typed_in_lower_case_is_looked_up_as_typed_and_answered_as_replied(world: World) -> None:
    made: Counter[str] = Counter()
    for kind in (kind for kind in LOGIC_MIXTURE if kind.startswith("memory/")):
        for seed in range(300):
            document = MAKERS[kind](world, Random(seed))
            rough = roughen(document, Random(seed), share=1.0)
            for before, after in zip(document.exchanges, rough.exchanges, strict=True):
                if after.turn == before.turn:
                    continue
                made[kind] += 1
                calls = [[c for step in one.turn.steps for c in step.calls] for one in (before, after)]
                for one, two in zip(*calls, strict=True):
                    assert normalise(one.body) == normalise(two.body), "the memory finds either"
                    assert one.reply == two.reply
                assert before.turn.answer is not None
                assert after.turn.answer in {before.turn.answer, before.turn.answer.lower()}
                assert after.turn.answer in after.question or after.turn.answer == before.turn.answer
                assert parse_turn(render_turn(after.turn)) == after.turn
    assert all(made[kind] > 5 for kind in LOGIC_MIXTURE if kind.startswith("memory/")), made


def test_a_lower_case_question_goes_on_with_the_memorys_own_spelling() -> None:
    born, currency = Claim("Ada Lovelace", "birthplace", "England"), Claim("England", "currency", "Pound")
    question = "What is the currency of the birthplace of Ada Lovelace?"
    document = dialogue("hops", question, answer("Pound", need(born), need(currency, 1)), born, currency)
    turns = [
        "".join(span.text for span in render_turn(rough.exchanges[0].turn))
        for rough in (roughen(document, Random(seed), share=1.0) for seed in range(100))
        if rough.exchanges[0].question == question.lower()
    ]
    lines = (
        "<think>",
        "I need the birthplace of ada lovelace. <lookup>ada lovelace | birthplace</lookup><fact>England</fact>",
        "Next I need the currency of England. <lookup>England | currency</lookup><fact>Pound</fact>",
        "</think>",
        "Pound",
    )
    assert set(turns) == {"\n".join(lines)}


@pytest.mark.parametrize("kind", ["logic/ordering", "logic/rules", "logic/boolean", "talk/on_the_text"])
def test_a_rough_puzzle_is_the_same_puzzle(world: World, kind: str) -> None:
    pieces = {*words().given_names, *words().nouns, "true", "false", "not", "and", "or"}
    changed = 0
    for seed in range(500):
        document = MAKERS[kind](world, Random(seed))
        rough = roughen(document, Random(seed), share=1.0)
        told, asked = (
            [word for word in re.findall(r"\w+", one.exchanges[0].question) if word in pieces]
            for one in (document, rough)
        )
        assert told == asked
        changed += rough != document
        if ":" in document.exchanges[0].question:
            assert rough.exchanges[0].question.endswith(document.exchanges[0].question.split(":")[1])
    assert changed > 250


def test_pooled_names_are_few() -> None:
    lexicon, rng = Lexicon(pool=20), Random(0)
    assert len({lexicon.entity(rng) for _ in range(500)}) <= 20
    assert len({Lexicon().entity(rng) for _ in range(500)}) > 400


def test_the_control_reads_as_many_facts_about_nobody(tmp_path: Path) -> None:
    real = pretraining_world(tiny_pretraining(tmp_path / "real"))
    control = pretraining_world(tiny_pretraining(tmp_path / "control", with_facts=False))
    assert len(control.facts) == len(real.facts)
    assert Counter((fact.relation, fact.value) for fact in control.facts) == Counter(
        (fact.relation, fact.value) for fact in real.facts
    )
    assert not set(control.subjects) & set(real.subjects)
    assert len(control.subjects) == len(real.subjects)
