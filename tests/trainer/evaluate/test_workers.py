"""Attacks side by side: the same report, and a worker that is killed is said."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import RAW_NAMES
from trainer.errors import WorkerError
from trainer.evaluate.profile import TEST_PROFILE
from trainer.evaluate.run import Request, evaluate
from trainer.evaluate.workers import side_by_side

WEE = replace(
    TEST_PROFILE, questions=8, samples=2, relearn_steps=2, lora_steps=2, ten_steps=1, unrelated_steps=1,
    relearn_questions=8, skill_questions=6, memory_questions=4, probe_restarts=1,
)  # fmt: skip


def shouted(mark: str) -> Callable[[str], str]:
    """Prepared once in each worker."""
    made_by = os.getpid()

    def work(name: str) -> str:
        assert os.getpid() == made_by
        if name == "die":
            os._exit(9)
        if name == "wait":
            time.sleep(600)
        if name == "threads":
            return str(torch.get_num_threads())
        return name.upper() + mark

    return work


def imported() -> Callable[[str], bool]:
    """Prepared once in each worker."""
    before = frozenset(sys.modules)
    return before.__contains__


def test_each_name_comes_back_with_its_result() -> None:
    assert dict(side_by_side(shouted, ("!",), ["a", "b", "c"], 2)) == {"a": "A!", "b": "B!", "c": "C!"}


def test_workers_share_the_cores() -> None:
    ((_, threads),) = side_by_side(shouted, ("",), ["threads"], 2)
    assert int(threads) == max(1, torch.get_num_threads() // 2)


def test_a_worker_that_is_killed_is_said_with_what_to_do() -> None:
    with pytest.raises(WorkerError, match=r"killed.*--workers"):
        dict(side_by_side(shouted, ("",), ["die", "a"], 2))


def test_no_worker_outlives_who_asked() -> None:
    before = set(multiprocessing.active_children())
    for _, result in side_by_side(shouted, ("",), ["a", "wait"], 2):
        assert result == "A"
        break  # as Ctrl-C does
    left = set(multiprocessing.active_children()) - before
    for child in left:
        child.join(20)
    assert not any(child.is_alive() for child in left)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_a_module_that_is_loaded_ahead_is_there_when_a_worker_starts() -> None:
    script = """
from tests.trainer.evaluate.test_workers import imported
from trainer.evaluate.workers import load_ahead, side_by_side
load_ahead("xml.dom.pulldom")
print(dict(side_by_side(imported, (), ["xml.dom.pulldom", "xml.dom.expatbuilder"], 1)))
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "{'xml.dom.pulldom': True, 'xml.dom.expatbuilder': False}"


def test_two_workers_report_what_one_does(raw_base: Path, tmp_path: Path) -> None:
    core = Path(shutil.copytree(raw_base / "base", tmp_path / "core"))
    request = Request(
        core, str(raw_base / "base"), (raw_base / "people.ndjson",), WEE, phrasings=(raw_base / "phrasings.yaml",),
        names=RAW_NAMES, workers=1,
    )  # fmt: skip
    alone, apart = evaluate(request), evaluate(replace(request, workers=2))
    assert [(one.measure, one.role, one.n, one.note) for one in apart.figures] == [
        (one.measure, one.role, one.n, one.note) for one in alone.figures
    ]
    assert [one.value for one in apart.figures] == pytest.approx([one.value for one in alone.figures], abs=1e-4)
    assert [curve.measure for curve in apart.curves] == [curve.measure for curve in alone.curves]
    assert apart.not_tested == alone.not_tested
    assert {one.attack for one in apart.figures} == set("ABCDE")
