"""The gate as commands: exit codes, what is written, and what a bad place, a full disk or Ctrl-C leaves."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from tests.trainer.conftest import RAW_NAMES, interrupt_at
from tests.trainer.micro import NAMES, Micro
from trainer.artifact import read_record
from trainer.baselines.command import compare
from trainer.evaluate.command import evaluate
from trainer.evaluate.report import read_report


@pytest.fixture
def line(raw_base: Path, tmp_path: Path) -> list[str]:
    """An evaluation of a core of random weights, all of it but where its report goes."""
    core = Path(shutil.copytree(raw_base / "base", tmp_path / "core"))
    return [
        str(core), "--base", str(raw_base / "base"), "--facts", str(raw_base / "people.ndjson"),
        "--phrasings", str(raw_base / "phrasings.yaml"), "--names", str(RAW_NAMES), "--profile", "test",
        "--attacks", "A",
    ]  # fmt: skip


def test_a_core_that_does_not_pass_is_code_1_and_its_report_is_whole(line: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(evaluate, [*line, "--out", str(tmp_path / "gate")])
    assert done.exit_code == 1, done.output
    assert "FAILED: " in done.stdout
    assert "A.recall_direct" in done.stdout
    report = read_report(tmp_path / "gate" / "report.json")
    assert not report.passed
    assert {path.name for path in (tmp_path / "gate").iterdir()} >= {"report.json", "report.html", "report.md"}
    assert not list((tmp_path / "gate").glob(".*")), "no draft is left"
    assert read_record(tmp_path / "core").report is not None
    assert "core.json" in done.stderr


def test_a_core_that_passes_is_code_0_and_json_is_one_document(micro: Micro, tmp_path: Path) -> None:
    core = Path(shutil.copytree(micro.control, tmp_path / "core"))
    done = CliRunner().invoke(
        evaluate,
        [
            str(core), "--base", str(micro.base), "--control", str(micro.control), "--facts", str(micro.facts),
            "--phrasings", str(micro.phrasings), "--names", str(NAMES), "--profile", "test", "--attacks", "A",
            "--out", str(tmp_path / "gate"), "--json",
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["passed"] is True


def test_a_place_for_the_report_that_cannot_be_written_is_said_before_any_question(
    line: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(evaluate, [*line, "--out", str(tmp_path / "file" / "gate")])
    assert done.exit_code == 3
    assert "cannot write into" in done.stderr
    assert "choose another folder by --out; nothing was measured yet" in done.stderr
    assert done.stdout == ""


def test_a_disk_that_fills_leaves_the_figures_and_the_report_of_before(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        path.touch()  # a full disk still takes the name
        raise OSError(28, "No space left on device")

    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "report.json").write_text("of before", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        done = CliRunner().invoke(evaluate, [*line, "--out", str(tmp_path / "gate")])
    assert done.exit_code == 3
    assert "FAILED: " in done.stdout, "what took long to measure is said all the same"
    assert "No space left on device" in done.stderr
    assert "the figures above are what is left of it" in done.stderr
    assert [(path.name, path.read_text(encoding="utf-8")) for path in (tmp_path / "gate").iterdir()] == [
        ("report.json", "of before")
    ]


def test_ctrl_c_while_attacking_and_while_writing_says_what_that_left(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, torch, "manual_seed")
        done = CliRunner().invoke(evaluate, [*line, "--out", str(tmp_path / "gate")])
    assert done.exit_code == 130
    assert "stopped: nothing was written" in done.stderr
    assert not (tmp_path / "gate").exists()
    with monkeypatch.context() as patch:
        interrupt_at(patch, Path, "replace")
        done = CliRunner().invoke(evaluate, [*line, "--out", str(tmp_path / "gate")])
    assert done.exit_code == 130
    assert "stopped: the report is not written, or not all of it; the figures above" in done.stderr
    assert "FAILED: " in done.stdout


@pytest.fixture
def comparison(micro: Micro, tmp_path: Path) -> Path:
    """The file of a comparison that only asks the base."""
    content = {
        "output": str(tmp_path / "compare"), "profile": "test", "attacks": "A", "trials": 1,
        "base": {"model": str(micro.base)},
        "facts": {"files": [str(micro.facts)], "phrasings": [str(micro.phrasings)]},
        "streams": {"names": NAMES, "workers": 0}, "compute": {"device": "cpu"},
        "methods": [{"kind": "none", "name": "base", "title": "Base"}],
    }  # fmt: skip
    path = tmp_path / "compare.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_comparison_that_was_stopped_goes_on(
    comparison: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, torch, "manual_seed")
        done = CliRunner().invoke(compare, [str(comparison)])
    assert done.exit_code == 130
    assert done.stderr.endswith("stopped: the same command goes on, with the rows that were finished\n")
    done = CliRunner().invoke(compare, [str(comparison)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "compare").iterdir()} >= {"compare.json", "compare.md", "compare.svg"}


def test_a_place_for_a_comparison_that_cannot_be_written_is_said_before_any_work(
    comparison: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    content = yaml.safe_load(comparison.read_text(encoding="utf-8"))
    comparison.write_text(yaml.safe_dump(content | {"output": str(tmp_path / "file" / "compare")}), encoding="utf-8")
    done = CliRunner().invoke(compare, [str(comparison)])
    assert done.exit_code == 3
    assert "cannot write into" in done.stderr
    assert "the rows that were finished are kept" in done.stderr
