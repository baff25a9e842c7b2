"""The benchmark of a step runs and says what it measured; how fast it is, is no matter of a test."""

import json
from pathlib import Path

import pytest

from benchmarks import trainer_speed


def test_a_step_is_measured_beside_the_bare_loop(raw_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--documents", "4", "--row-tokens", "96", "--steps", "2", "--workers", "0"]
    trainer_speed.main(["--base", str(raw_base / "base"), "--facts", str(raw_base / "people.ndjson"), *size])
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert found["dual_step_s"] > 0
    assert found["share_of_bare"] == pytest.approx(found["dual_tokens_per_s"] / found["bare_tokens_per_s"])
    assert 0 <= found["waited_share"] <= 1
    if found["device"] == "cpu":
        assert (found["mfu"], found["peak_memory_gib"]) == (None, None)
    assert any(line.startswith("share of the bare loop") for line in lines)


def test_an_unknown_shape_or_precision_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--shape", "huge"], ["--precision", "float8"]):
        with pytest.raises(SystemExit):
            trainer_speed.main(["--base", "b", "--facts", "f", *words])
        assert "invalid choice" in capsys.readouterr().err
