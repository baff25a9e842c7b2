"""Bases for the trainer's tests: one with random weights, made in a second, and the tiny world's, once a session."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch

from tests.trainer.micro import Micro, make_micro
from tests.trainer.tiny import tiny_facts, tiny_pretraining, tiny_run, write_tiny_world
from trainer.artifact import CoreRecord, now, versions, write_core
from trainer.config import RunConfig, ShapeConfig, parse_config
from trainer.pretraining import CHATML_FRAME, new_model, pretrain
from trainer.run import Finished, start_run
from trainer.sources import pretraining_world
from trainer.tokenizer import train_tokenizer
from trainer.world.corpus import BASE_MIXTURE, mixture

RAW_NAMES = 300


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C means what it does at a terminal: a shell's background jobs inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Ctrl-C whenever a function is called."""
    plain = getattr(owner, name)

    def interrupted(*given: object, **named: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return plain(*given, **named)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.fixture(scope="session")
def raw_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base of random weights, its facts and its wording."""
    folder = tmp_path_factory.mktemp("raw")
    config = tiny_pretraining(folder, names=RAW_NAMES, mixture=dict(BASE_MIXTURE))
    world, rng = pretraining_world(config), Random(0)
    documents = [mixture(BASE_MIXTURE, fact_free=False).draw(world, rng) for _ in range(600)]
    tokenizer = train_tokenizer(documents, CHATML_FRAME, 700)
    torch.manual_seed(0)
    model = new_model(ShapeConfig(layers=2, hidden=32, heads=2, key_value_heads=1, feed_forward=64), tokenizer)
    record = CoreRecord(name="raw", kind="base", created=now(), config={}, versions=versions())
    write_core(folder / "base", model, tokenizer, record)
    return folder


@pytest.fixture
def raw_run(raw_base: Path, tmp_path: Path) -> dict[str, object]:
    """The plain settings of a short run on the raw base; a test changes what it is about."""
    return raw_settings(raw_base, tmp_path / "run")


def raw_settings(raw_base: Path, output: Path) -> dict[str, object]:
    """See `raw_run`."""
    return {
        "output": str(output),
        "base": {"model": str(raw_base / "base")},
        "facts": {
            "files": [str(raw_base / "people.ndjson")],
            "phrasings": [str(raw_base / "phrasings.yaml")],
            "known_only": False,
        },
        "streams": {
            "fact": {"documents": 6, "row_tokens": 96},
            "logic": {"documents": 6, "row_tokens": 96, "kinds": ["logic/boolean", "memory/one_hop"]},
            "route": {"documents": 4, "row_tokens": 96},
            "names": RAW_NAMES,
            "workers": 0,
        },
        "stages": [{"kind": "metabolize", "steps": 4, "warmup_steps": 1}],
        "compute": {"device": "cpu"},
        "watch": {"every": 100, "questions": 4, "rollouts": 0, "least_logic": 0},
        "save": {"every": 100},
    }


def make_config(settings: dict[str, object], **changes: object) -> RunConfig:
    """Settings as a config."""
    return parse_config(RunConfig, settings | changes, "run.yaml")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world's base, trained from nothing: the folder that holds facts, wording and pretraining/base."""
    folder = tmp_path_factory.mktemp("tiny")
    assert pretrain(tiny_pretraining(folder)) == folder / "pretraining" / "base"
    return folder


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Micro:
    """The gate's micro world with its three models."""
    return make_micro(tmp_path_factory.mktemp("micro"))


@pytest.fixture(scope="session")
def tiny_core(tiny_base: Path) -> Finished:
    """The run that takes the facts out of the tiny base."""
    return start_run(tiny_run(tiny_base))


@pytest.fixture
def facts_file(tmp_path: Path) -> Path:
    """The tiny world's facts as NDJSON."""
    assert len(tiny_facts()) == 200
    return write_tiny_world(tmp_path)
