"""The commands: what they print, where, and with which exit code."""

import json
from pathlib import Path

import click
import pytest
import torch
import yaml
from click.testing import CliRunner

from tests.trainer.conftest import interrupt_at, make_config
from trainer import inquiry, rehearsal
from trainer.artifact import read_record
from trainer.command import check, pretrain, resume, train
from trainer.run import start_run

Settings = dict[str, object]


@pytest.fixture
def run_file(raw_run: Settings, tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(raw_run), encoding="utf-8")
    return path


def test_check_tells_what_a_run_needs_and_changes_nothing(run_file: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(check, [str(run_file), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["facts"], found["facts_asked"]) == (200, 0)
    assert found["relations_by_frames"] == []
    assert found["stages"][0]["losses"]["anchor/logic"] >= 0
    assert found["stages"][0]["step_s"] > 0
    assert not (tmp_path / "run").exists()
    # 4 steps are less than 100 between two looks, so there is one, at the end.
    assert found["stages"][0]["total_s"] == pytest.approx(4 * found["stages"][0]["step_s"] + found["look_s"])
    assert found["peak_gib"] > found["memory_gib"] + 0.1, "torch and its libraries alone are more than that"
    assert found["free_gib"] > 0
    assert "facts: 200, known to the base or not" in CliRunner().invoke(check, [str(run_file)]).stdout


def test_check_tries_stages_that_compute_the_same_once(run_file: Path, raw_run: Settings) -> None:
    short, again = (
        {"kind": "regenerate", "steps": steps, "learning_rate": rate} for steps, rate in ((3, 1e-3), (5, 1e-4))
    )
    other = short | {"losses": {"anchor": {}}}
    run_file.write_text(yaml.safe_dump(raw_run | {"stages": [short, again, other]}), encoding="utf-8")
    done = CliRunner().invoke(check, [str(run_file), "--json"])
    assert done.exit_code == 0, done.output
    first, second, third = json.loads(done.stdout)["stages"]
    assert (first["step_s"], first["losses"]) == (second["step_s"], second["losses"])
    assert second["total_s"] - first["total_s"] == pytest.approx(2 * first["step_s"])
    assert third["losses"].keys() != first["losses"].keys()


def test_check_asks_a_stated_sample_of_very_many_facts(
    run_file: Path, raw_run: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = dict(raw_run["facts"]) | {"known_only": True}  # type: ignore[call-overload]
    run_file.write_text(yaml.safe_dump(raw_run | {"facts": facts}), encoding="utf-8")
    looks: list[int] = []

    def exact(_: object, examples: list[object], __: object) -> list[bool]:
        looks.append(len(examples))  # every fourth is missed, and however often it is asked again
        return [looks[-1] == looks[0] and n % 4 > 0 for n in range(len(examples))]

    monkeypatch.setattr(inquiry, "exact", exact)
    text = CliRunner().invoke(check, [str(run_file)]).stdout
    assert "facts: 150 known to the base; 50 not known in any of 18 wordings and left out" in text
    assert looks == [200, 200] + [50] * 16, "only what was missed is asked again"
    looks.clear()
    monkeypatch.setattr(rehearsal, "_MOST_ASKED", 40)
    text = CliRunner().invoke(check, [str(run_file)]).stdout
    # Of 40 asked, 30 are known: 75 %, and 1.96 √(0.75 · 0.25 / 40) = 13.4 %.
    assert "facts: 200; of a sample of 40 the base knows 75.0% (give or take 13.4%); train asks all" in text
    assert text.count("not known: ") == 10


def test_check_says_what_will_be_perturbed_and_refuses_a_layer_that_is_not_there(
    run_file: Path, raw_run: Settings
) -> None:
    stage = {"kind": "perturb", "noise": 0.5, "where": ["mlp", "names"], "common": 1.0, "layers": [1]}
    stages = [{"kind": "metabolize", "steps": 1}, stage]
    run_file.write_text(yaml.safe_dump(raw_run | {"stages": stages}), encoding="utf-8")
    done = CliRunner().invoke(check, [str(run_file)])
    assert "perturb 1: noise in 3 matrices and the rows of " in done.stdout
    stage["layers"] = [2]
    run_file.write_text(yaml.safe_dump(raw_run | {"stages": stages}), encoding="utf-8")
    for command in (check, train):
        done = CliRunner().invoke(command, [str(run_file)])
        assert done.exit_code == 2
        assert "stages.1: layers: there is no 2; the 2 layers of the base have the numbers 0 to 1" in done.stderr


def test_train_prints_one_document_and_says_where_the_core_is(run_file: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(train, [str(run_file), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["core"] == str(tmp_path / "run" / "core")
    again = CliRunner().invoke(train, [str(run_file)])
    assert again.exit_code == 2
    assert "was left as it is" in again.stderr
    assert again.stdout == ""


def test_resume_goes_on(raw_run: Settings, tmp_path: Path) -> None:
    finished = start_run(make_config(raw_run | {"save": {"every": 2}}))
    assert finished.core is not None
    finished.core.rename(tmp_path / "elsewhere")
    done = CliRunner().invoke(resume, [str(tmp_path / "run"), "--json"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "core" / "core.json").is_file()


def test_wrong_use_and_outside_failures_have_their_codes(run_file: Path, raw_run: Settings, tmp_path: Path) -> None:
    run_file.write_text(yaml.safe_dump(raw_run | {"sede": 1}), encoding="utf-8")
    wrong = CliRunner().invoke(train, [str(run_file)])
    assert wrong.exit_code == 2
    assert "did you mean seed?" in wrong.stderr
    run_file.write_text(yaml.safe_dump(raw_run | {"base": {"model": str(tmp_path / "none")}}), encoding="utf-8")
    outside = CliRunner().invoke(check, [str(run_file)])
    assert outside.exit_code == 3
    assert "cannot load the base" in outside.stderr
    empty = CliRunner().invoke(resume, [str(tmp_path)])
    assert empty.exit_code == 3


@pytest.mark.parametrize(
    ("command", "left"),
    [(check, "a check leaves nothing behind"), (train, "before the first step; the same command begins anew")],
)
def test_ctrl_c_while_preparing_says_what_that_left(
    command: click.Command, left: str, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, torch, "manual_seed")  # the first thing that preparing does
        done = CliRunner().invoke(command, [str(run_file)])
    assert done.exit_code == 130
    assert done.stderr == f"stopped: {left}\n"
    assert not (tmp_path / "run").exists()
    assert CliRunner().invoke(command, [str(run_file)]).exit_code == 0


def test_pretrain_makes_a_base_and_refuses_to_do_so_twice(raw_base: Path, tmp_path: Path) -> None:
    settings = {
        "output": str(tmp_path / "p"), "facts": [str(raw_base / "people.ndjson")],
        "phrasings": [str(raw_base / "phrasings.yaml")], "names": 50, "documents": 8,
        "row_tokens": 128, "steps": 2, "workers": 0, "tokenizer": {"vocabulary": 700, "documents": 300},
        "shape": {"layers": 1, "hidden": 32, "heads": 2, "key_value_heads": 1, "feed_forward": 64},
    }  # fmt: skip
    path = tmp_path / "pretrain.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = CliRunner().invoke(pretrain, [str(path), "--json"])
    assert done.exit_code == 0, done.output
    assert (Path(json.loads(done.stdout)["base"]) / "core.json").is_file()
    assert CliRunner().invoke(pretrain, [str(path)]).exit_code == 2
    control = settings | {
        "output": str(tmp_path / "c"),
        "with_facts": False,
        "tokenizer": str(tmp_path / "p" / "tokenizer"),
    }
    path.write_text(yaml.safe_dump(control), encoding="utf-8")
    assert CliRunner().invoke(pretrain, [str(path)]).exit_code == 0
    record = read_record(tmp_path / "c" / "base")
    assert record.kind == "control"
    assert [one.kind for one in record.data] == ["phrasings"], "it never read the facts"
    assert [one.kind for one in read_record(tmp_path / "p" / "base").data] == ["facts", "phrasings"]
