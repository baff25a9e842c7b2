"""Making a base is a long job too: it stops when asked, goes on exactly, and says what is missing."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainer import loop as loop_module
from trainer import pretraining as pretraining_module
from trainer.checkpoint import last_checkpoint
from trainer.config import ComputeConfig, PretrainConfig, SaveConfig, ShapeConfig, TokenizerConfig
from trainer.errors import CheckpointError, OutOfMemoryError, RunExistsError
from trainer.pretraining import CHECKPOINTS, pretrain

STEPS = 4


@pytest.fixture
def config(raw_base: Path, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(
        output=tmp_path / "p", facts=(raw_base / "people.ndjson",), names=50, documents=8, row_tokens=128, steps=STEPS,
        workers=0, tokenizer=TokenizerConfig(vocabulary=700, documents=300), compute=ComputeConfig(device="cpu"),
        shape=ShapeConfig(layers=1, hidden=32, heads=2, key_value_heads=1, feed_forward=64), save=SaveConfig(every=2),
    )  # fmt: skip


def weights(base: Path | None) -> dict[str, torch.Tensor]:
    assert base is not None
    return load_file(base / "model.safetensors")


def on_call(number: int, plain: Callable[..., Any], act: Callable[[], None]) -> Callable[..., Any]:
    """A function that first acts, once, when it is called for that time."""
    calls = itertools.count(1)

    def called(*values: Any, **named: Any) -> Any:
        if next(calls) == number:
            act()
        return plain(*values, **named)

    return called


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def twice() -> None:
    interrupt()
    interrupt()


@pytest.mark.parametrize(
    ("module", "work", "number", "act", "step"),
    [
        (loop_module, "take_step", 3, interrupt, 3),
        (loop_module, "StepReport", 4, twice, 2),
        (pretraining_module, "write_core", 1, interrupt, STEPS),
    ],
    ids=["once", "twice", "after the last step"],
)
def test_what_was_stopped_goes_on_as_if_it_had_not(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    module: Any, work: str, number: int, act: Callable[[], None], step: int,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(module, work, on_call(number, getattr(module, work), act))
        assert pretrain(config) is None
    place = last_checkpoint(config.output / CHECKPOINTS)
    assert place is not None
    assert place.name == f"step-{step:08d}"
    whole, resumed = (
        weights(pretrain(config.model_copy(update={"output": tmp_path / "whole"}))),
        weights(pretrain(config)),
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_full_disk_is_said_with_the_way_on(config: PretrainConfig) -> None:
    config.output.mkdir()
    (config.output / f".history.jsonl.{os.getpid()}.part").symlink_to("/dev/full")  # where it is written first
    with pytest.raises(CheckpointError, match=r"MiB free on its disk: .*No space left.*same command"):
        pretrain(config)
    assert pretrain(config) == config.output / "base"


def test_a_place_that_cannot_be_written_is_said(config: PretrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write into"):
        pretrain(config.model_copy(update={"output": tmp_path / "file" / "p"}))


def test_memory_that_is_spent_is_said_with_what_the_same_command_takes_from_a_changed_file(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spend() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "take_step", on_call(4, loop_module.take_step, spend))
        with pytest.raises(OutOfMemoryError, match=r"accumulation.*Last checkpoint: .*step-00000002.*compute"):
            pretrain(config)
    with pytest.raises(RunExistsError, match="another config"):
        pretrain(config.model_copy(update={"documents": 4}))
    leaner = config.model_copy(update={"compute": ComputeConfig(device="cpu", accumulation=2)})
    assert pretrain(leaner) == config.output / "base"
