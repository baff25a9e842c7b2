"""The detectors, alone and in the loop: what is taken back, what is cited, what is let be."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from knowledge_store.protocol import CallKind, ValueQuery
from knowledge_store.store import Store
from service.codec import Codec, Message
from service.command import serve
from service.detect.base import Confirmation, Draft, Objection, StepDetector
from service.detect.choice import Detectors, choose_detectors
from service.detect.claim import ClaimDetector
from service.detect.spot import spot_subjects
from service.detect.uncertainty import UncertaintyDetector
from service.event import AnswerText, StepReplied, StepText, StepWithdrawn
from service.orchestrator import Orchestrator, Question
from service.trace import Detector, Finish, Outcome, TraceCall
from tests.service.facts import put
from tests.service.scripted import END, ScriptedEngine
from tests.service.tokenizers_under_test import qwen_like


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "facts.sqlite")
    put(opened, "Zed Labs", "ceo", "Maria Okafor")
    put(opened, "Zed Labs", "headquarters", "Nairobi")
    put(opened, "Acme", "ceo", "Omar Reyes")
    put(opened, "Acme", "headquarters", "Lima")
    yield opened
    opened.close()


def draft(text: str, question: str = "Who runs Zed Labs?", **more: object) -> Draft:
    given = {"is_answer": True, "tokens": (), "logprobs": (), "calls": (), "own_calls": 0} | more
    return Draft(question, text, **given)  # type: ignore[arg-type]


def test_subjects_are_spotted_by_their_longest_names(store: Store) -> None:
    put(store, "Zed", "ceo", "Nobody")
    with store.generation() as generation:
        names = [it.name for it in spot_subjects("Is Zed Labs's ceo in Acme, or Zed? Who knows.", generation)]
        assert names == ["Zed Labs", "Acme", "Zed"]
        assert spot_subjects("nothing here is known of Tom", generation) == []


def test_a_claim_that_contradicts_the_memory_is_looked_up(store: Store) -> None:
    with store.generation() as generation:
        verdict = ClaimDetector().judge(draft("Omar Reyes"), generation)
        assert isinstance(verdict, Objection)
        assert verdict.query == ValueQuery("Zed Labs", "ceo")
        named = ClaimDetector().judge(draft("Bob", "What is the headquarters of Acme?"), generation)
        assert isinstance(named, Objection)
        assert named.query == ValueQuery("Acme", "headquarters")
        unclear = ClaimDetector().judge(draft("Bob Smith"), generation)
        assert isinstance(unclear, Objection)
        assert unclear.query is None


def test_a_claim_that_the_memory_holds_is_cited(store: Store) -> None:
    with store.generation() as generation:
        verdict = ClaimDetector().judge(draft("Maria Okafor"), generation)
        assert isinstance(verdict, Confirmation)
        assert [fact.relation for fact in verdict.facts] == ["ceo"]


@pytest.mark.parametrize(
    "harmless",
    [
        draft("42", "Tom has 12 apples and gets 30. How many?"),
        draft("Ana", "Ana is taller than Ben. Who is the tallest?"),
        draft("I don't know"),
        draft("yes", "Is the ceo of Zed Labs older?"),
        draft("Bob Smith", "The ceo of Zed Labs is Bob Smith. Who runs Zed Labs?"),
        draft("Ida", calls=[TraceCall(CallKind.LOOKUP, "Zed Labs | ceo", "Ida", Outcome.FOUND)]),
        draft("I need the ceo of Zed Labs.", is_answer=False, own_calls=1),
    ],
    ids=lambda it: it.text,
)
def test_what_claims_nothing_of_its_own_is_let_be(store: Store, harmless: Draft) -> None:
    detectors: list[StepDetector] = [ClaimDetector(), UncertaintyDetector()]
    with store.generation() as generation:
        assert [it.judge(harmless, generation) for it in detectors] == [None, None]


def test_an_unsure_content_token_is_an_objection_and_an_unsure_space_is_none(store: Store) -> None:
    tokens, sure, unsure = ("Bob", " ", "Smith"), (-0.01, -0.01, -0.01), (-0.01, -0.01, -2.0)
    space = (-0.01, -2.0, -0.01)
    with store.generation() as generation:
        detector = UncertaintyDetector(0.6)
        given = [
            detector.judge(draft("Bob Smith", tokens=tokens, logprobs=logprobs), generation)
            for logprobs in (sure, unsure, space)
        ]
        unknown = detector.judge(draft("Bob", "Who runs Nowhere?", tokens=("Bob",), logprobs=(-2.0,)), generation)
    assert given[0] is given[2] is unknown is None
    assert isinstance(given[1], Objection)


async def run(
    codec: Codec, store: Store, *stretches: str, detectors: list[StepDetector], question: str = "Who runs Zed Labs?"
) -> tuple[object, ...]:
    engine = ScriptedEngine(codec, *stretches)
    orchestrator = Orchestrator(engine, codec, store, core="scripted", detectors=detectors)
    return tuple([event async for event in orchestrator.stream(Question((Message("user", question),)))])


async def test_a_recalled_answer_is_taken_back_and_corrected(demo_codec: Codec, store: Store) -> None:
    events = await run(
        demo_codec, store, f"Omar Reyes{END}", f"\n</think>\nMaria Okafor{END}", detectors=[ClaimDetector()]
    )
    made = events[-1].answer  # type: ignore[attr-defined]
    assert (made.text, made.grounded, made.finish) == ("Maria Okafor", True, Finish.STOP)
    (step,) = made.steps
    assert (step.detector, step.withdrawn) == (Detector.CLAIM, "Omar Reyes")
    assert [fact.value for fact in made.facts] == ["Maria Okafor"]
    shown = "".join(event.text for event in events if isinstance(event, AnswerText | StepText))
    assert "Omar" not in shown
    assert any(isinstance(event, StepWithdrawn) for event in events)
    assert any(isinstance(event, StepReplied) for event in events)


async def test_where_the_relation_is_not_told_the_core_is_made_to_ask(demo_codec: Codec, store: Store) -> None:
    asks = "I need the ceo of Zed Labs. <lookup>Zed Labs | ceo</lookup>"
    events = await run(
        demo_codec, store, f"Bob Smith{END}", asks, f"\n</think>\nMaria Okafor{END}", detectors=[ClaimDetector()]
    )
    made = events[-1].answer  # type: ignore[attr-defined]
    assert made.text == "Maria Okafor"
    assert made.steps[0].withdrawn == "Bob Smith"


async def test_a_line_of_the_thought_is_taken_back_to_its_beginning(demo_codec: Codec, store: Store) -> None:
    events = await run(
        demo_codec,
        store,
        "<think>\nLet me see.\nThe ceo of Zed Labs is Omar Reyes.\nSo it is he.\n</think>\nOmar Reyes" + END,
        "\n</think>\nMaria Okafor" + END,
        detectors=[ClaimDetector()],
    )
    made = events[-1].answer  # type: ignore[attr-defined]
    assert made.text == "Maria Okafor"
    assert [step.text for step in made.steps] == ["Let me see.", ""]
    assert made.steps[1].withdrawn == "The ceo of Zed Labs is Omar Reyes."
    assert made.steps[1].calls[0].body == "Zed Labs | ceo"


async def test_a_step_is_taken_back_once_and_not_for_ever(demo_codec: Codec, store: Store) -> None:
    stubborn = f"</think>\nBob Smith{END}"
    events = await run(demo_codec, store, f"Bob Smith{END}", stubborn, detectors=[ClaimDetector()])
    made = events[-1].answer  # type: ignore[attr-defined]
    assert (made.text, made.grounded) == ("Bob Smith", False)


async def test_a_confirmed_answer_is_cited_and_grounded(demo_codec: Codec, store: Store) -> None:
    events = await run(demo_codec, store, f"Maria Okafor{END}", detectors=[ClaimDetector()])
    made = events[-1].answer  # type: ignore[attr-defined]
    assert (made.text, made.grounded, made.usage.lookups) == ("Maria Okafor", True, 0)
    assert [fact.value for fact in made.facts] == ["Maria Okafor"]


@pytest.mark.parametrize("beyond", ["", "\n"], ids=["exact", "within a token"])
async def test_a_model_without_tags_is_taught_and_stopped_on_strings(store: Store, beyond: str) -> None:
    codec = qwen_like(with_tags=False)
    assert codec.decode(codec.encode_trusted("</lookup>\n")[-1:]) == ">\n"
    engine = ScriptedEngine(
        codec, "<think>\nI need it. <lookup>Zed Labs | ceo</lookup>" + beyond, f"\n</think>\nMaria Okafor{END}"
    )
    made = await Orchestrator(engine, codec, store, core="stock").answer(
        Question((Message("user", "Who runs Zed Labs?"),))
    )
    assert made.text == "Maria Okafor"
    (step,) = made.steps
    assert (step.text, step.detector) == ("I need it.", Detector.TAUGHT)
    assert "<lookup>subject | relation</lookup>" in codec.decode(engine.prompts[0])
    assert engine.samplings[0].stop_strings == ("</lookup>", "</calc>")


def test_every_choice_of_detectors_can_be_given_and_adds_what_it_says() -> None:
    made = {name: {type(one) for one in choose_detectors(name)} for name in get_args(Detectors)}
    assert made["call"] == set()
    assert made["union"] == made["claim"] | made["uncertainty"] == {ClaimDetector, UncertaintyDetector}
    offered = next(option for option in serve.params if option.name == "detectors").type
    assert tuple(getattr(offered, "choices", ())) == get_args(Detectors)


def test_detectors_that_do_not_exist_are_refused_before_anything_starts() -> None:
    result = CliRunner().invoke(serve, ["--detectors", "telepathy"])
    assert result.exit_code == 2
    assert "'telepathy' is not one of 'call', 'claim', 'uncertainty', 'union'" in result.output
