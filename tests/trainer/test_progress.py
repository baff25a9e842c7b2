"""How far a job is, where there is a terminal and where there is none."""

import io
import re

import pytest

from trainer import progress
from trainer.progress import Progress, watched


class Terminal(io.StringIO):
    """Standard error as a person sees it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the job believes in, as its only item."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_a_minute(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    job = Progress("training", 400, "step", done=100)
    for _ in range(100):
        clock[0] += 2.0
        job.advance("regenerate", {"kl": "0.125"})
    job.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" steps")[0] for line in lines] == [
        "regenerate: 130 of 400", "regenerate: 160 of 400", "regenerate: 190 of 400",
    ]  # fmt: skip
    assert lines[1].endswith("2.00s/step, 02:00 gone, 08:00 left, kl 0.125"), (
        "a run that goes on counts its own steps only"
    )


def test_a_terminal_gets_a_bar_and_no_lines(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    for _ in watched(range(5), "asking", "part"):
        clock[0] += 100.0
    assert re.search(r"asking: 100%.*5/5", screen.getvalue())
    assert " of 5 parts" not in screen.getvalue()


def test_the_second_process_is_silent(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    job = Progress("training", 3, "step", shown=False)
    for _ in range(3):
        clock[0] += 100.0
        job.advance()
    job.say("a look")
    job.close()
    assert capsys.readouterr().err == ""
