"""Facts and wording that come from outside."""

import json
from pathlib import Path

import pytest

from tests.trainer.tiny import tiny_facts
from trainer.config import FactsConfig
from trainer.errors import FactsError
from trainer.fact import read_targets, write_targets
from trainer.sources import targets_of
from trainer.world.phrasing import read_phrasings


def write(path: Path, *rows: dict[str, object] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(subject: str = "Ada", relation: str = "metal", value: str = "tin", **more: object) -> dict[str, object]:
    return {"subject": subject, "relation": relation, "value": value, **more}


def test_facts_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    facts = tiny_facts()
    assert read_targets(write_targets(facts, tmp_path)).facts == tuple(facts)


def test_the_memorys_own_modules_are_read() -> None:
    folder = Path(__file__).parents[2] / "knowledge"
    targets = read_targets(sorted(folder.glob("*.ndjson")))
    assert len(targets.facts) > 9000
    assert {source.name for source in targets.sources} >= {"people.ndjson", "geography.ndjson"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2"),
        ('{"subject": "A"}', "relation"),
        ('{"subject": "", "relation": "r", "value": "v"}', "subject"),
        ('{"subject": "A", "relation": "r", "value": "v", "vlaue": "w"}', "vlaue"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(FactsError, match="line 2") as caught:
        read_targets([write(tmp_path / "m.ndjson", row(), line)])
    assert said in str(caught.value)


def test_a_missing_file_and_an_empty_one_are_said(tmp_path: Path) -> None:
    with pytest.raises(FactsError, match="cannot read facts"):
        read_targets([tmp_path / "none.ndjson"])
    with pytest.raises(FactsError, match="no fact to take out"):
        read_targets([write(tmp_path / "m.ndjson")])


def test_contradictions_are_refused_and_named_or_the_first_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "m.ndjson", row(), row(value="gold"))
    with pytest.raises(FactsError, match="'tin' and 'gold'"):
        read_targets([path])
    assert [fact.value for fact in read_targets([path], contradictions="first").facts] == ["tin"]


def test_deletions_and_past_facts_are_no_targets(tmp_path: Path) -> None:
    path = write(tmp_path / "m.ndjson", row(), row("Bo", op="delete"), row("Cy", valid_to="2001-01-01"))
    assert [fact.subject for fact in read_targets([path]).facts] == ["Ada"]


def test_targets_can_be_chosen_by_pattern(tmp_path: Path) -> None:
    path = write(tmp_path / "m.ndjson", row(), row(relation="river", value="Nile"))
    chosen = targets_of(FactsConfig(files=(path,), targets=("m/river/*",)))
    assert [fact.relation for fact in chosen.facts] == ["river"]
    with pytest.raises(FactsError, match="none of the 2 facts matches"):
        targets_of(FactsConfig(files=(path,), targets=("x/*",)))


def test_a_relation_that_no_file_words_is_asked_for_by_the_frames() -> None:
    phrasings = read_phrasings()
    assert len(phrasings.questions("refund window")) >= 30
    assert all("refund window" in question for question in phrasings.questions("refund window"))


def test_a_users_own_wording_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('relations: {runbook: {questions: ["Where is written how to run {subject}?"]}}', encoding="utf-8")
    assert read_phrasings([path]).questions("runbook")[0] == "Where is written how to run {subject}?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('relations: {r: {questions: ["What?"]}}', "lacks {subject}"),
        ("relation: {}", "relation"),
        ('questions: ["Tell me {noun}"]', "lacks {subject}"),
        ("a: [", "no file of phrasings"),
        ("relations: {r: {qestions: [x]}}", "relations.r.qestions: unknown key; did you mean questions?"),
    ],
)
def test_wording_that_cannot_be_used_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FactsError, match=r"mine\.yaml") as caught:
        read_phrasings([path])
    assert said in str(caught.value)
    assert "pydantic" not in str(caught.value)
