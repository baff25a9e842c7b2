"""The same losses however a step is cut: into parts, over processes, in less memory; and what adapters are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.conftest import RAW_NAMES, make_config, raw_settings
from tests.trainer.tiny import tiny_pretraining
from trainer.adapter import LORA_WARNING
from trainer.checkpoint import list_checkpoints
from trainer.config import ComputeConfig, PretrainConfig, RunConfig
from trainer.errors import BaseModelError
from trainer.pretraining import pretrain
from trainer.run import CHECKPOINTS, Finished, start_run

Settings = dict[str, object]
LOSSES = {
    "reversal": {"layers": "all", "warmup_steps": 1},
    "never_knew": {},
    "unlikelihood": {},
    "anchor": {},
    "route": {},
}
STAGE = {"kind": "metabolize", "steps": 3, "warmup_steps": 1, "average": 0.5, "losses": LOSSES}
STAGES = [STAGE, {"kind": "average", "of": [0, 0]}]  # the mean of an end with itself: it must pass through the files
SHOWN = ("loss/", "step/norm", "step/tokens", "canary/probe")
SCRIPT = """
import os, signal, sys
from pathlib import Path

from trainer.config import RunConfig
from trainer.logbook import Logbook
from trainer.machine import Machine
from trainer.run import RUN_FILE, resume_run, start_run

config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())
stop_after = int(sys.argv[2])
assert Machine(config.compute).processes == 2, "torchrun started two, and both take part"
plain = Logbook.step

def step(book, cursor, *rest):
    plain(book, cursor, *rest)
    if cursor.total == stop_after and book.writes:
        os.killpg(os.getpgrp(), signal.SIGINT)  # as a terminal does: the launcher gets it too

Logbook.step = step
resume_run(config.output) if (config.output / RUN_FILE).exists() else start_run(config)
"""


def losses(history: list[dict[str, object]] | tuple[dict[str, object], ...]) -> list[dict[str, float]]:
    return [
        {name: float(str(value)) for name, value in row.items() if name.startswith(SHOWN)}
        for row in history
        if "step/norm" in row
    ]


def assert_equal(one: list[dict[str, float]], two: list[dict[str, float]], *, rel: float = 2e-3) -> None:
    assert len(one) == len(two) == 3
    for left, right in zip(one, two, strict=True):
        assert left == pytest.approx(right, rel=rel, abs=1e-4)


@pytest.fixture
def settings(raw_run: Settings) -> Settings:
    return raw_run | {"stages": STAGES}


@pytest.fixture(scope="module")
def plain(raw_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One process, one part, float32."""
    return start_run(make_config(raw_settings(raw_base, tmp_path_factory.mktemp("plain") / "run"), stages=STAGES))


def test_accumulation_changes_nothing(settings: Settings, plain: Finished) -> None:
    cut = start_run(make_config(settings, compute={"device": "cpu", "accumulation": 2}))
    assert_equal(losses(cut.history), losses(plain.history))


def test_checkpointed_activations_change_nothing(settings: Settings, plain: Finished) -> None:
    lean = start_run(make_config(settings, compute={"device": "cpu", "checkpoint_activations": True}))
    assert_equal(losses(lean.history), losses(plain.history), rel=1e-5)


def test_bfloat16_comes_near(settings: Settings, plain: Finished) -> None:
    short = start_run(make_config(settings, compute={"device": "cpu", "precision": "bfloat16"}))
    assert_equal(losses(short.history), losses(plain.history), rel=0.1)


def launch(config: RunConfig, folder: Path, *, stop_after: int = 0) -> subprocess.CompletedProcess[str]:
    """Start or resume a run in two processes; Ctrl-C comes after a step, where one is named."""
    (folder / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    (folder / "job.py").write_text(SCRIPT, encoding="utf-8")
    return in_two(str(folder / "job.py"), str(folder / "config.json"), str(stop_after))


def in_two(*job: str) -> subprocess.CompletedProcess[str]:
    """A script or a module with its arguments, in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    root = Path(__file__).parents[2]
    return subprocess.run(
        [*command, *job],
        capture_output=True, text=True, timeout=400, check=False, start_new_session=True,
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    )  # fmt: skip


def history_of(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("shard", [False, True], ids=["ddp", "fsdp2"])
def test_two_processes_give_the_losses_of_one(settings: Settings, plain: Finished, tmp_path: Path, shard: bool) -> None:
    config = make_config(settings, output=str(tmp_path / "two"), compute={"device": "cpu", "shard": shard})
    done = launch(config, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(losses(history_of(tmp_path / "two")), losses(plain.history))
    assert plain.core is not None
    one, two = load_file(plain.core / "model.safetensors"), load_file(tmp_path / "two" / "core" / "model.safetensors")
    for name in one:
        assert torch.allclose(one[name].float(), two[name].float(), atol=2e-2), name


def test_two_processes_stop_at_ctrl_c_and_resume_as_if_they_had_not(
    settings: Settings, plain: Finished, tmp_path: Path
) -> None:
    """The signal comes to each process twice: from the terminal, and again from the launcher."""
    config = make_config(settings, output=str(tmp_path / "two"), compute={"device": "cpu", "shard": True})
    stopped = launch(config, tmp_path, stop_after=1)
    assert [place.name for place in list_checkpoints(tmp_path / "two" / CHECKPOINTS)] == ["step-00000001"], stopped
    resumed = launch(config, tmp_path)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert_equal(losses(history_of(tmp_path / "two")), losses(plain.history))
    assert (tmp_path / "two" / "core" / "core.json").is_file()


def test_two_processes_pretrain_as_one(raw_base: Path, tmp_path: Path) -> None:
    def make(output: Path) -> PretrainConfig:
        return tiny_pretraining(
            tmp_path, output=output, tokenizer=raw_base / "base", names=RAW_NAMES, documents=8,
            row_tokens=128, steps=3, with_facts=False, compute=ComputeConfig(device="cpu"),
        )  # fmt: skip

    assert pretrain(make(tmp_path / "one")) is not None
    (tmp_path / "two.yaml").write_text(make(tmp_path / "two").model_dump_json(), encoding="utf-8")  # JSON is YAML
    done = in_two("-m", "metabolism", "pretrain", str(tmp_path / "two.yaml"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(losses(history_of(tmp_path / "two")), losses(history_of(tmp_path / "one")))
    assert "unused parameters" not in done.stderr, "every weight of a base takes part in every pass"


def test_adapters_train_and_warn_that_they_do_not_resist(settings: Settings, raw_base: Path) -> None:
    base = {"model": str(raw_base / "base"), "lora": {"rank": 4}}
    with pytest.warns(UserWarning, match="adapters only"):
        finished = start_run(make_config(settings, base=base))
    assert "never for a core that shall have forgotten" in LORA_WARNING
    assert finished.core is not None
    before, after = load_file(raw_base / "base" / "model.safetensors"), load_file(finished.core / "model.safetensors")
    assert before.keys() == after.keys(), "the adapters are melted into the weights"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("mlp" in name for name in changed)
    assert not any("embed" in name for name in changed)


def test_preserved_weights_stay_as_they_were(settings: Settings, raw_base: Path) -> None:
    finished = start_run(make_config(settings, base={"model": str(raw_base / "base"), "preserve": ["*layers.0*"]}))
    assert finished.core is not None
    before, after = load_file(raw_base / "base" / "model.safetensors"), load_file(finished.core / "model.safetensors")
    for name in (name for name in before if "proj.weight" in name):  # a norm's change may be lost in bfloat16
        assert torch.equal(before[name], after[name]) == ("layers.0" in name), name


def test_a_pattern_that_preserves_nothing_is_refused(settings: Settings, raw_base: Path) -> None:
    with pytest.raises(BaseModelError, match="matches no weight"):
        start_run(make_config(settings, base={"model": str(raw_base / "base"), "preserve": ["*none*"]}))
