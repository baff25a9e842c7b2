"""The core folder, its record, the figures and the rollouts: what others read of a run."""

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from knowledge_store.protocol import PROTOCOL_VERSION, Tag
from tests.trainer.conftest import make_config
from trainer import rollout
from trainer.artifact import CoreRecord, core_schema, now, read_record, versions, write_core, write_report
from trainer.base_model import load_base
from trainer.config import BaseConfig
from trainer.decoding import decode
from trainer.errors import ArtifactError, RunExistsError
from trainer.figure import change_point
from trainer.rollout import answer_all, calculate, silent_memory
from trainer.run import Finished, start_run

Settings = dict[str, object]


def short_run(base: Path, facts: Path, folder: Path) -> Finished:
    settings: Settings = {
        "name": "short", "output": str(folder), "base": {"model": str(base)},
        "facts": {"files": [str(facts)], "known_only": False},
        "streams": {"fact": {"documents": 4}, "logic": {"documents": 4}, "route": {"documents": 4}, "workers": 0},
        "stages": [{"kind": "metabolize", "steps": 5}], "compute": {"device": "cpu"},
        "watch": {"every": 1, "questions": 4, "rollouts": 2, "least_logic": 0},
    }  # fmt: skip
    return start_run(make_config(settings))


@pytest.fixture(scope="module")
def finished(raw_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return short_run(raw_base / "base", raw_base / "people.ndjson", tmp_path_factory.mktemp("artifact") / "run")


def test_a_core_folder_loads_with_transformers_and_has_the_tags(finished: Finished) -> None:
    assert finished.core is not None
    model = AutoModelForCausalLM.from_pretrained(finished.core)
    tokenizer = AutoTokenizer.from_pretrained(finished.core)
    assert tokenizer.chat_template
    for tag in Tag:
        (token,) = tokenizer(str(tag), add_special_tokens=False)["input_ids"]
        assert token < model.get_input_embeddings().weight.shape[0]


def test_the_record_says_where_a_core_comes_from(finished: Finished, raw_base: Path) -> None:
    assert finished.core is not None
    record = read_record(finished.core)
    assert record.protocol_version == PROTOCOL_VERSION
    assert record.base is not None
    assert record.base.digest.startswith("sha256:")
    assert [(data.name, data.rows) for data in record.data] == [("people.ndjson", 200)]
    assert record.targets is not None
    assert record.targets.taken_out == 200
    assert record.config["stages"][0]["kind"] == "metabolize"
    assert {"torch", "transformers", "python"} <= set(record.versions)
    assert record.report is None, "a claim is made by measuring"
    jsonschema.validate(
        json.loads((finished.core / "core.json").read_text(encoding="utf-8")), json.loads(core_schema())
    )


def test_a_core_that_is_trained_on_carries_its_own_record(finished: Finished, raw_base: Path, tmp_path: Path) -> None:
    """Else the facts that the first run took out would be forgotten by the record of the second."""
    assert finished.core is not None
    further = short_run(finished.core, raw_base / "people.ndjson", tmp_path / "further")
    assert further.core is not None
    assert read_record(further.core).made_of == read_record(finished.core)
    damaged = shutil.copytree(finished.core, tmp_path / "damaged")
    (damaged / "core.json").write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match="malformed"):
        short_run(damaged, raw_base / "people.ndjson", tmp_path / "never")


def test_a_report_is_put_into_the_record(raw_base: Path, tmp_path: Path) -> None:
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    record = CoreRecord(name="x", created=now(), config={}, versions=versions())
    folder = write_core(tmp_path / "core", base.model, base.tokenizer, record)
    write_report(folder, {"recall": 0.0})
    assert read_record(folder) == record.model_copy(update={"report": {"recall": 0.0}})
    with pytest.raises(RunExistsError, match="left as it is"):
        write_core(folder, base.model, base.tokenizer, record)
    with pytest.raises(ArtifactError, match=r"has no core\.json"):
        write_report(tmp_path, {})
    (folder / "core.json").write_text('{"nmae": 1}', encoding="utf-8")
    with pytest.raises(ArtifactError, match="malformed"):
        read_record(folder)


def test_figures_and_history_are_written(finished: Finished) -> None:
    assert finished.core is not None
    run = finished.core.parent
    assert (run / "figures" / "inside.png").stat().st_size > 10_000
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"canary/recall", "canary/logic", "canary/lookup", "canary/steps"} <= set(rows[0])
    assert sum("canary/probe" in row for row in rows) == 5
    assert list((run / "tensorboard").glob("events*"))
    assert (finished.core / "training.svg").read_bytes() == (run / "figures" / "inside.svg").read_bytes()


def test_a_step_is_told_from_a_slope() -> None:
    steps = np.arange(0.0, 20.0)
    step = change_point(steps, np.where(steps < 8, 1.0, 0.0))
    assert step is not None
    assert step.step == pytest.approx(7.5)
    assert (step.before, step.after) == (1.0, 0.0)
    assert step.verdict == "a phase transition"
    slope = change_point(steps, 1 - steps / 19)
    assert slope is not None
    assert slope.verdict == "a slope"
    assert slope.width_steps > 5 > step.width_steps
    assert change_point(steps, np.ones(20)) is None


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ("1990 - 1954", "36"),
        ("20 > 1", "true"),
        ("7 / 2", "3.5"),
        ("1 / 0", "ERROR"),
        ("import os", "ERROR"),
        ("", "ERROR"),
    ],
)
def test_the_rollouts_alu_answers_as_the_protocol_says(body: str, result: str) -> None:
    assert calculate(body) == result


def test_rollouts_answer_every_question(raw_base: Path) -> None:
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    rollouts = answer_all(
        base.model, base.tokenizer, base.frame, ["a?", "b?"], silent_memory, most_calls=1, most_tokens=4
    )
    assert [one.question for one in rollouts] == ["a?", "b?"]


def test_a_call_that_the_core_is_made_to_write_is_answered(raw_base: Path) -> None:
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    asked: list[tuple[int, str]] = []

    def memory(number: int, body: str) -> str:
        asked.append((number, body))
        return "gold"

    opening = "<think>\nI need it. <lookup>Ada | metal"
    close = base.tokenizer.convert_tokens_to_ids(str(Tag.END_LOOKUP))
    head = base.model.get_output_embeddings()
    head.bias = None
    base.model.lm_head.forward = lambda hidden: _always(hidden, close, len(base.tokenizer))  # type: ignore[method-assign]
    (one,) = answer_all(
        base.model, base.tokenizer, base.frame, ["q"], memory, opening=opening, most_calls=1, most_tokens=2
    )
    assert asked == [(0, "Ada | metal")]
    assert "<lookup>Ada | metal</lookup><fact>gold</fact>" in one.text


def test_what_was_written_before_a_call_is_not_written_again(raw_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    close = base.tokenizer.convert_tokens_to_ids(str(Tag.END_LOOKUP))
    base.model.lm_head.forward = lambda hidden: _always(hidden, close, len(base.tokenizer))  # type: ignore[method-assign]
    prompts: list[int] = []
    written: list[list[int]] = []

    def watched(model, given, *, resume, **options) -> list[list[int]]:
        prompts.append(len(given))
        return decode(model, given, resume=lambda place, ids: written.append(ids) or resume(place, ids), **options)

    monkeypatch.setattr(rollout, "decode", watched)
    known: rollout.Continuations = {}
    opening = "<think>\nI need it. <lookup>Ada | metal"
    for reply, asked, new in (("gold", [2], 4), ("tin", [2], 2), ("gold", [], 0)):
        prompts.clear()
        written.clear()
        replies = answer_all(
            base.model, base.tokenizer, base.frame, ["a?", "b?", "a?"], lambda _, body: reply,  # noqa: B023
            opening=opening, most_calls=1, known=known,
        )  # fmt: skip
        assert prompts == asked, "who asks what another asks waits for it"
        assert written == [[close]] * new
        assert all(f"</lookup><fact>{reply}</fact>" in one.text for one in replies)


def test_questions_that_part_at_a_reply_are_each_answered(raw_base: Path) -> None:
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    close = base.tokenizer.convert_tokens_to_ids(str(Tag.END_LOOKUP))
    base.model.lm_head.forward = lambda hidden: _always(hidden, close, len(base.tokenizer))  # type: ignore[method-assign]
    replies = answer_all(
        base.model, base.tokenizer, base.frame, ["a?", "a?"], lambda number, _: ("gold", "tin")[number],
        opening="<think>\nI need it. <lookup>Ada | metal", most_calls=1,
    )  # fmt: skip
    assert ["gold" in replies[0].text, "tin" in replies[0].text] == [True, False]
    assert ["gold" in replies[1].text, "tin" in replies[1].text] == [False, True]


def _always(hidden, token: int, size: int):
    logits = hidden.new_zeros((*hidden.shape[:-1], size))
    logits[..., token] = 1.0
    return logits
