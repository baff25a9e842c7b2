"""`DigitalMetabolismLLM` in process, with the demo core, and over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowledge_store.errors import InvalidChange, UnknownModule
from knowledge_store.fact import Fact
from service.codec import Codec
from service.errors import CoreUnusable, QuestionRefused, ServerRefused, SettingsError
from service.facade import DigitalMetabolismLLM
from service.trace import Detector
from tests.conftest import DEMO_CORE
from tests.service.api.conftest import serving

CAPITAL = "What is the capital of Kenya?"


@pytest.fixture(scope="module")
def llm() -> Iterator[DigitalMetabolismLLM]:
    """The demo core in this process, with two modules of its own."""
    pytest.importorskip("torch")
    modules = {"geography": [("Kenya", "capital", "Nairobi")], "elements": [("Helium", "symbol", "He")]}
    with DigitalMetabolismLLM(DEMO_CORE, modules, engine="embedded") as llm:
        yield llm


def test_an_answer_stands_on_its_fact_and_follows_the_next_one(llm: DigitalMetabolismLLM) -> None:
    before = llm.reason(CAPITAL)
    assert (before.text, before.grounded) == ("Nairobi", True)
    assert [(fact.subject, fact.value) for fact in before.facts] == [("Kenya", "Nairobi")]
    report = llm.update_knowledge([("Kenya", "capital", "Nakuru")])
    assert (report.module, report.changed) == ("geography", 1)
    after = llm.reason(CAPITAL)
    assert (after.text, after.generation) == ("Nakuru", report.generation)
    assert llm.reason(CAPITAL, generation=before.generation).text == "Nairobi"


def test_facts_come_as_tuples_mappings_facts_and_files(llm: DigitalMetabolismLLM, tmp_path: Path) -> None:
    assert llm.update_knowledge([{"subject": "a", "relation": "b", "value": "c"}], module="m").added == 1
    assert llm.update_knowledge([Fact("d", "e", "f", "m")]).module == "m"
    assert llm.update_knowledge([{"subject": "a", "relation": "b", "op": "delete"}], module="m").deleted == 1
    file = tmp_path / "m.ndjson"
    file.write_text(json.dumps({"subject": "g", "relation": "h", "value": "i"}) + "\n")
    report = llm.update_knowledge(file)
    assert (report.module, report.added) == ("m", 1)


def test_what_is_wrong_is_told_and_changes_nothing(llm: DigitalMetabolismLLM, tmp_path: Path) -> None:
    with pytest.raises(InvalidChange, match="line 2"):
        llm.update_knowledge([("a", "b", "c"), {"subject": 1}], module="fresh")
    file = tmp_path / "fresh.ndjson"
    file.write_text("nonsense\n")
    with pytest.raises(InvalidChange, match="line 1"):
        llm.update_knowledge(file)
    with pytest.raises(SettingsError, match="module="):
        llm.update_knowledge([Fact("a", "b", "c", "x"), Fact("a", "b", "c", "y")])
    with pytest.raises(QuestionRefused):
        llm.reason("  ")


def test_detectors_take_back_what_the_core_says_of_itself(llm: DigitalMetabolismLLM) -> None:
    question = "What is 3 plus 4? What is the ceo of Rex?"  # more than the core can do: it computes, and says that
    facts = [("Rex", "ceo", "Ida Novak")]
    llm.update_knowledge(facts, module="geography")
    assert llm.reason(question).text == "I don't know"
    with DigitalMetabolismLLM(DEMO_CORE, {"people": facts}, engine="embedded", detectors="claim") as watched:
        answer = watched.reason(question)
    (taken_back,) = [step for step in answer.steps if step.withdrawn]
    assert taken_back.detector is Detector.CLAIM
    assert (taken_back.withdrawn or "").endswith("ERROR")
    assert [call.reply for call in taken_back.calls] == ["Ida Novak"]
    assert [fact.value for fact in answer.facts if fact.step == answer.steps.index(taken_back)] == ["Ida Novak"]
    assert answer.text == "Ida Novak"


def test_detectors_that_do_not_exist_are_refused() -> None:
    with pytest.raises(SettingsError, match="call, claim, uncertainty, union"):
        DigitalMetabolismLLM(DEMO_CORE, detectors="telepathy")  # type: ignore[arg-type]


def test_a_folder_that_is_no_core_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CoreUnusable):
        DigitalMetabolismLLM(tmp_path)


def test_the_same_object_speaks_to_a_server(tmp_path: Path, demo_codec: Codec) -> None:
    with (
        serving(tmp_path, demo_codec) as running,
        DigitalMetabolismLLM(running.url, ["geography"]) as llm,
    ):
        assert llm.reason("Kenya | capital").text == "Nairobi"
        assert llm.update_knowledge([("Kenya", "capital", "Nakuru")]).changed == 1
        assert llm.reason("Kenya | capital").text == "Nakuru"
        assert llm.reason("Helium | symbol").text == "I don't know"  # of a module that was not named
        with pytest.raises(ServerRefused, match="subject is blank"):
            llm.update_knowledge([(" ", "b", "c")])
    with pytest.raises(SettingsError, match="its own store"):
        DigitalMetabolismLLM("http://127.0.0.1:9", store=tmp_path / "s.sqlite")
    with pytest.raises(SettingsError, match="its own detectors"):
        DigitalMetabolismLLM("http://127.0.0.1:9", detectors="union")


def test_an_unknown_module_is_told_when_it_is_read(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with (
        DigitalMetabolismLLM(DEMO_CORE, ["nowhere"], engine="embedded", store=tmp_path / "s.sqlite") as llm,
        pytest.raises(UnknownModule),
    ):
        llm.reason(CAPITAL)
