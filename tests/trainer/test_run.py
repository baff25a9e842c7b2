"""A long job behaves: it resumes exactly, stops when asked, notices ruin, and overwrites nothing."""

import itertools
import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.conftest import make_config, raw_settings
from tests.trainer.tiny import tiny_facts
from trainer import inquiry
from trainer import loop as loop_module
from trainer import run as run_module
from trainer.artifact import TargetsRecord, read_record
from trainer.base_model import load_base
from trainer.canary import Canaries
from trainer.checkpoint import Cursor, list_checkpoints, load_checkpoint, save_checkpoint
from trainer.config import BaseConfig, WatchConfig
from trainer.errors import (
    BaseModelError,
    CheckpointError,
    CollapseError,
    ConfigError,
    FactsError,
    FeedError,
    NotFiniteError,
    OutOfMemoryError,
    RunExistsError,
    TrainerError,
)
from trainer.inquiry import know
from trainer.logbook import Logbook
from trainer.loop import StepReport
from trainer.machine import Machine
from trainer.reader import Reader
from trainer.rehearsal import rehearse
from trainer.run import CHECKPOINTS, ENDS, RUN_FILE, Finished, resume_run, start_run
from trainer.sources import targets_of, world_of
from trainer.streams.batch import Example
from trainer.streams.encoder import Encoder
from trainer.watchdog import Watchdog

Settings = dict[str, object]
STAGES = [
    {"kind": "metabolize", "steps": 4, "warmup_steps": 1, "average": 0.5, "losses": {
        "reversal": {"layers": "all", "warmup_steps": 2, "reinitialise_every": 2}, "never_knew": {}, "unlikelihood": {},
        "anchor": {}, "route": {}}},
    {"kind": "perturb", "noise": 0.2},
    {"kind": "perturb", "noise": 0.6, "flat": {"mass": 0.5, "batches": 2}},
    {"kind": "regenerate", "steps": 4, "warmup_steps": 1, "average": 0.9},
    {"kind": "average", "of": [0, 3]},
]  # fmt: skip


def losses(finished: Finished) -> list[dict[str, object]]:
    return [
        {name: value for name, value in row.items() if name.startswith(("loss/", "canary/", "step/norm"))}
        for row in finished.history
    ]


def weights(finished: Finished) -> dict[str, torch.Tensor]:
    assert finished.core is not None
    return load_file(finished.core / "model.safetensors")


def after(step: int, act: Callable[[], None]) -> Callable[..., None]:
    """A logbook's step that acts once, after the step of that number."""
    plain = Logbook.step

    def noted(self: Logbook, cursor: Cursor, stage: str, strength: float, report: StepReport) -> None:
        plain(self, cursor, stage, strength, report)
        if cursor.total == step:
            act()

    return noted


def change(file: Path, act: Callable[[Any], None]) -> None:
    """Change a JSON file by hand."""
    content = json.loads(file.read_bytes())
    act(content)
    file.write_text(json.dumps(content), encoding="utf-8")


WATCH = {"every": 2, "questions": 4, "rollouts": 0, "least_logic": 0}


@pytest.fixture(scope="module")
def whole(raw_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of all kinds of stages that nobody stopped."""
    settings = raw_settings(raw_base, tmp_path_factory.mktemp("whole") / "run")
    return start_run(make_config(settings, stages=STAGES, watch=WATCH))


@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not_bit_for_bit(
    raw_run: Settings, whole: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    settings = raw_run | {"stages": STAGES, "watch": WATCH}
    with monkeypatch.context() as patch:
        patch.setattr(Logbook, "step", after(stop_after, lambda: os.kill(os.getpid(), signal.SIGINT)))
        stopped = start_run(make_config(settings, output=str(tmp_path / "stopped")))
    assert stopped.core is None
    assert stopped.checkpoint is not None
    torch.manual_seed(99)  # whatever happens in between
    resumed = resume_run(tmp_path / "stopped")
    assert losses(resumed) == losses(whole)
    one, two = weights(whole), weights(resumed)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


TWICE = [STAGES[0], STAGES[0] | {"average": None}, {"kind": "perturb", "noise": 0.2}, *STAGES[3:]]


@pytest.mark.parametrize("place", ["perturb", "step 6"])
def test_a_run_that_broke_off_goes_on_from_the_end_of_the_last_stage_bit_for_bit(
    raw_run: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    settings = raw_run | {"stages": TWICE, "watch": WATCH, "save": {"every": 100, "keep": 5}}
    whole = start_run(make_config(settings, output=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        if place == "perturb":
            patch.setattr(run_module, "perturb", full)
        else:
            patch.setattr(Logbook, "step", after(6, full))
        with pytest.raises(CheckpointError, match=r"make room and go on by `metabolism resume "):
            start_run(make_config(settings, output=str(tmp_path / "broken")))
    steps = [path.name for path in list_checkpoints(tmp_path / "broken" / CHECKPOINTS)]
    assert steps == [f"step-{number:08d}" for number in ([4, 8] if place == "perturb" else [4])]
    torch.manual_seed(99)
    resumed = resume_run(tmp_path / "broken")
    assert losses(resumed) == losses(whole)
    one, two = weights(whole), weights(resumed)
    assert all(torch.equal(one[name], two[name]) for name in one)


def interrupt_all() -> None:
    """What a terminal's Ctrl-C does: it comes to the workers too."""
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def assert_goes_on_as(whole: Finished, folder: Path) -> None:
    torch.manual_seed(99)  # whatever happens in between
    resumed = resume_run(folder)
    assert losses(resumed) == losses(whole)
    assert resumed.canaries == whole.canaries
    one, two = weights(whole), weights(resumed)
    assert all(torch.equal(one[name], two[name]) for name in one)


BEYOND = [
    ({"kind": "perturb", "noise": 0.5, "layers": [0, 99]}, r"stages\.1: layers: there is no 99; .* 0 to 1"),
    ({"kind": "perturb", "noise": 0.5, "where": ["names"], "layers": [-1]}, r"there is no -1"),
    ({"kind": "regenerate", "steps": 1, "losses": {"anchor": {"kind": "l2", "layers": [3]}}}, r"no 3; .* 0 to 2"),
    ({"kind": "metabolize", "steps": 1, "losses": {"reversal": {"layers": [99]}}}, r"no 99; the base has 2 layers"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "said"), BEYOND, ids=["perturb", "names", "anchor", "reversal"])
def test_a_layer_that_is_not_there_is_said_before_the_first_step(
    raw_run: Settings, tmp_path: Path, stage: Settings, said: str
) -> None:
    config = make_config(raw_run | {"stages": [STAGES[0], stage]})
    for work in (start_run, rehearse):
        with pytest.raises(ConfigError, match=said):
            work(config)
    assert not (tmp_path / "run").exists()


def test_a_stage_that_finds_nothing_to_perturb_is_said_before_the_first_step(raw_run: Settings, tmp_path: Path) -> None:
    config = make_config(
        raw_run | {"stages": [STAGES[0], {"kind": "perturb", "noise": 0.5}]},
        base=dict(raw_run["base"]) | {"preserve": ["*"]},  # type: ignore[call-overload]
    )
    with pytest.raises(BaseModelError, match=r"stages\.1: no weight .* base\.preserve keeps them all"):
        start_run(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("work", "step"), [("perturb", 4), ("mean_weights", 8), ("draw_figures", 8)])
def test_ctrl_c_between_stages_and_after_the_last_step_loses_nothing(
    raw_run: Settings, whole: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str, step: int
) -> None:
    plain = getattr(run_module, work)

    def interrupted(*values: Any, **named: Any) -> Any:
        interrupt_all()
        return plain(*values, **named)

    streams = raw_run["streams"] | {"workers": 1}  # type: ignore[operator]
    settings = raw_run | {"stages": STAGES, "watch": WATCH, "streams": streams}
    with monkeypatch.context() as patch:
        patch.setattr(run_module, work, interrupted)
        stopped = start_run(make_config(settings))
    assert (stopped.core, stopped.again) == (None, 0)
    assert stopped.checkpoint == tmp_path / "run" / CHECKPOINTS / f"step-{step:08d}"
    assert_goes_on_as(whole, tmp_path / "run")


def test_a_second_ctrl_c_keeps_no_half_of_a_step(
    raw_run: Settings, whole: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = loop_module.train_probes, itertools.count(1)

    def interrupted(*values: Any) -> float | None:  # the weights have taken the step, the cursor has not
        if next(calls) == 4:
            interrupt_all()
            interrupt_all()
        return plain(*values)

    settings = raw_run | {"stages": STAGES, "watch": WATCH, "save": {"every": 2}}
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "train_probes", interrupted)
        stopped = start_run(make_config(settings))
    assert stopped.core is None
    assert stopped.checkpoint == tmp_path / "run" / CHECKPOINTS / "step-00000002"
    assert stopped.again == 1
    assert_goes_on_as(whole, tmp_path / "run")


def test_a_worker_that_the_kernel_ends_is_said_and_the_steps_are_kept(
    raw_run: Settings, whole: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end() -> None:
        for child in multiprocessing.active_children():
            child.kill()
            child.join()

    streams = raw_run["streams"] | {"workers": 1, "prefetch": 1}  # type: ignore[operator]
    settings = raw_run | {"stages": STAGES, "watch": WATCH, "streams": streams}
    with monkeypatch.context() as patch:
        patch.setattr(Logbook, "step", after(3, end))
        with pytest.raises(FeedError, match=r"want of memory.*Last checkpoint: .*step-00000003.*resume"):
            start_run(make_config(settings))
    assert_goes_on_as(whole, tmp_path / "run")


def test_an_average_changes_no_step_and_is_what_the_stage_leaves(raw_run: Settings, tmp_path: Path) -> None:
    def run(average: float | None) -> Finished:
        stage = {"kind": "metabolize", "steps": 4, "warmup_steps": 1, "average": average}
        return start_run(make_config(raw_run | {"stages": [stage], "output": str(tmp_path / f"{average}")}))

    plain, forgetful, averaged = run(None), run(1e-9), run(0.9)
    assert [row for row in losses(averaged) if "step/norm" in row] == [r for r in losses(plain) if "step/norm" in r]
    last, same, mean = weights(plain), weights(forgetful), weights(averaged)
    assert all(torch.allclose(last[name].float(), same[name].float(), atol=1e-6) for name in last), "nothing is kept"
    assert any(not torch.equal(last[name], mean[name]) for name in last)


def test_the_mean_of_two_ends_is_the_mean_of_what_those_stages_left(raw_run: Settings, tmp_path: Path) -> None:
    stage = {"kind": "metabolize", "steps": 2, "warmup_steps": 1}

    def run(name: str, *stages: Settings) -> dict[str, torch.Tensor]:
        return weights(start_run(make_config(raw_run | {"stages": stages, "output": str(tmp_path / name)})))

    first, second = run("first", stage), run("second", stage, stage)
    mean = run("mean", stage, stage, {"kind": "average", "of": [0, 1]})
    assert any(not torch.equal(first[name], second[name]) for name in first)
    for name in first:  # the ends are kept in float32, the cores in bfloat16
        assert torch.allclose(mean[name].float(), (first[name].float() + second[name].float()) / 2, atol=1e-2), name


def test_a_kept_end_that_is_damaged_is_said_with_the_way_on(raw_run: Settings, tmp_path: Path) -> None:
    stage = {"kind": "metabolize", "steps": 2, "warmup_steps": 1}
    stages = [stage, stage, {"kind": "average", "of": [0, 1]}]
    finished = start_run(make_config(raw_run | {"stages": stages, "save": {"every": 3}}))
    assert finished.core is not None
    finished.core.rename(tmp_path / "elsewhere")
    for damage in (lambda path: path.write_bytes(b"half of it"), Path.unlink):
        damage(tmp_path / "run" / ENDS / "stage-0.safetensors")
        with pytest.raises(CheckpointError, match=r"stage-0\.safetensors.*--from STEP"):
            resume_run(tmp_path / "run", step=3)


def test_checkpoints_come_by_steps_and_the_last_are_kept(raw_run: Settings, tmp_path: Path) -> None:
    settings = raw_run | {"stages": [{"kind": "metabolize", "steps": 7}], "save": {"every": 2, "keep": 2}}
    start_run(make_config(settings))
    names = [place.name for place in list_checkpoints(tmp_path / "run" / CHECKPOINTS)]
    assert names == ["step-00000006", "step-00000007"], "the last is the end of the stage"


def test_a_run_can_be_taken_up_from_an_earlier_checkpoint(raw_run: Settings, tmp_path: Path) -> None:
    settings = raw_run | {"stages": [{"kind": "metabolize", "steps": 5}], "save": {"every": 2, "keep": 3}}
    whole = start_run(make_config(settings))
    assert whole.core is not None
    whole.core.rename(tmp_path / "elsewhere")
    again = resume_run(tmp_path / "run", step=2)
    assert losses(again) == losses(whole)
    assert again.core is not None
    again.core.rename(tmp_path / "further")
    with pytest.raises(CheckpointError, match="no checkpoint of step 3"):
        resume_run(tmp_path / "run", step=3)


def test_nothing_is_overwritten(raw_run: Settings, tmp_path: Path) -> None:
    config = make_config(raw_run)
    start_run(config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    with pytest.raises(RunExistsError, match="metabolism resume"):
        start_run(config)
    with pytest.raises(RunExistsError, match="is finished"):
        resume_run(tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        resume_run(tmp_path)


def test_a_damaged_checkpoint_is_refused_and_an_earlier_one_named(tmp_path: Path) -> None:
    place = save_checkpoint(tmp_path, Cursor(0, 1, 1), {"x": torch.ones(3)}, (), keep=2)
    assert torch.equal(load_checkpoint(place).tensors["x"], torch.ones(3))
    with (place / "state.pt").open("ab") as file:
        file.write(b"!")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(place)


def test_a_full_disk_leaves_the_earlier_checkpoints_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, Cursor(0, 1, 1), {"x": torch.ones(3)}, (), keep=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left.*earlier checkpoints are whole"):
        save_checkpoint(tmp_path, Cursor(0, 2, 2), {"x": torch.zeros(3)}, (), keep=1)
    (place,) = list_checkpoints(tmp_path)
    assert torch.equal(load_checkpoint(place).tensors["x"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_a_checkpoint_that_finds_no_room_says_how_much_there_is(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"with \d+ MiB free on its disk"):
            save_checkpoint(tmp_path, Cursor(0, 1, 1), {"x": torch.ones(100_000)}, (), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_way_that_was_left_leaves_no_checkpoints(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, Cursor(0, step, step), {}, (), keep=3)
    save_checkpoint(tmp_path, Cursor(0, 3, 3), {}, (), keep=3)  # step 2 was taken up
    assert [place.name for place in list_checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]


def test_a_disk_that_fills_in_the_middle_of_a_run_loses_nothing(
    raw_run: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [{"kind": "metabolize", "steps": 4, "warmup_steps": 1}]
    settings = raw_run | {"stages": stages, "save": {"every": 2}}
    with monkeypatch.context() as patch:
        patch.setattr(Logbook, "step", after(3, lambda: (_ for _ in ()).throw(OSError(28, "No space left on device"))))
        with pytest.raises(CheckpointError, match=r"No space left.*metabolism resume"):
            start_run(make_config(settings))
    resumed = resume_run(tmp_path / "run")
    whole = start_run(make_config(settings, output=str(tmp_path / "whole")))
    assert losses(resumed) == losses(whole)


def test_a_disk_that_is_full_from_the_start_is_said_and_leaves_no_half_of_a_run(
    raw_run: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(CheckpointError, match=r"No space left.*start the run again"):
            start_run(make_config(raw_run))
    assert start_run(make_config(raw_run)).core == tmp_path / "run" / "core"


@pytest.mark.parametrize("value", ["tin", " ".join(["tin", "gold"] * 30)], ids=["a word", "sixty words"])
def test_one_fact_of_a_relation_that_nobody_words_is_taken_out_like_any(
    raw_run: Settings, tmp_path: Path, value: str
) -> None:
    (tmp_path / "one.ndjson").write_text(
        json.dumps({"subject": "Ada Lovel", "relation": "zorb of", "value": value}), encoding="utf-8"
    )
    facts = {"files": [str(tmp_path / "one.ndjson")], "known_only": False}
    reversal = {"reversal": {"layers": "all"}, "never_knew": {}, "unlikelihood": {}, "anchor": {}, "route": {}}
    stage = {"kind": "metabolize", "steps": 2, "losses": reversal}
    finished = start_run(make_config(raw_run | {"facts": facts, "stages": [stage]}))
    assert finished.core is not None
    assert all(value == value for row in losses(finished) for value in row.values()), "no NaN"


def test_not_a_number_in_the_bases_own_weights_is_said(raw_run: Settings, raw_base: Path, tmp_path: Path) -> None:
    base = load_base(BaseConfig(model=str(raw_base / "base")))
    with torch.no_grad():
        base.model.get_parameter("model.layers.0.mlp.up_proj.weight").fill_(torch.nan)
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(TrainerError, match="not finite"):
        start_run(make_config(raw_run | {"base": {"model": str(tmp_path / "base")}}))


def test_a_loss_that_is_not_finite_ends_the_run_before_the_weights_change(raw_run: Settings, tmp_path: Path) -> None:
    stage = {"kind": "metabolize", "steps": 8, "learning_rate": 1e30, "clip": 1e30, "warmup_steps": 0}
    with pytest.raises(NotFiniteError, match=r"lower learning_rate.*Last checkpoint: none.*run\.json"):
        start_run(make_config(raw_run | {"stages": [stage]}))
    change(tmp_path / "run" / RUN_FILE, lambda config: config["stages"][0].update(learning_rate=1e-4, clip=1.0))
    assert resume_run(tmp_path / "run").core is not None


def test_running_out_of_memory_says_what_to_change_and_resume_does_it(
    raw_run: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = loop_module.take_step, itertools.count(1)

    def spent(*values: Any) -> Any:
        if next(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(*values)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "take_step", spent)
        with pytest.raises(OutOfMemoryError, match=r"accumulation.*Last checkpoint: .*step-00000002.*run\.json"):
            start_run(make_config(raw_run | {"save": {"every": 2}}))
    change(tmp_path / "run" / RUN_FILE, lambda config: config["compute"].update(accumulation=2))
    resumed = resume_run(tmp_path / "run")
    assert resumed.core is not None
    assert json.loads((resumed.core / "core.json").read_bytes())["config"]["compute"]["accumulation"] == 2
    whole = start_run(make_config(raw_run, output=str(tmp_path / "whole")))
    for one, two in zip(losses(resumed), losses(whole), strict=True):
        assert one == pytest.approx(two, rel=2e-3, abs=1e-4)


def test_the_watchdog_names_the_canary_that_fell_after_its_patience() -> None:
    dog = Watchdog(WatchConfig(least_logic=0.5, patience=2), Canaries(recall=1, recall_seen=1, logic=0.9))
    low, fine = Canaries(0, 0, 0.4), Canaries(0, 0, 0.8)
    dog.look(low, grace=True)
    dog.look(low, grace=False)
    dog.look(fine, grace=False)
    dog.look(low, grace=False)
    with pytest.raises(CollapseError, match=r"logic canary fell: 40%.*base had 90%"):
        dog.look(low, grace=False)


def test_a_run_that_collapses_is_stopped_and_its_checkpoint_named(
    raw_run: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([Canaries(1, 1, 1.0), *[Canaries(0, 0, 0.1)] * 20])
    monkeypatch.setattr("trainer.canary.CanarySet.look", lambda *_, **__: next(looks))
    watch = {"every": 1, "questions": 4, "rollouts": 0, "patience": 3}
    stage = {"kind": "metabolize", "steps": 9}
    with pytest.raises(CollapseError, match=r"Last checkpoint: .*step-00000002"):
        start_run(make_config(raw_run | {"stages": [stage], "watch": watch, "save": {"every": 2}}))


def test_a_resumed_run_that_collapses_before_it_saves_names_the_checkpoint_of_before(
    raw_run: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    watch = {"every": 1, "questions": 4, "rollouts": 0, "patience": 1, "least_logic": 0}
    with monkeypatch.context() as patch:
        patch.setattr(Logbook, "step", after(1, interrupt_all))
        start_run(make_config(raw_run | {"watch": watch}))
    change(tmp_path / "run" / RUN_FILE, lambda config: config["watch"].update(least_logic=0.5))
    looks = iter([Canaries(1, 1, 1.0), *[Canaries(0, 0, 0.1)] * 20])
    monkeypatch.setattr("trainer.canary.CanarySet.look", lambda *_, **__: next(looks))
    with pytest.raises(CollapseError, match=r"Last checkpoint: .*step-00000001"):
        resume_run(tmp_path / "run")


def test_facts_that_the_base_does_not_know_are_left_out_and_listed(
    raw_run: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = dict(raw_run["facts"]) | {"known_only": True}  # type: ignore[call-overload]
    with pytest.raises(FactsError, match="knows none of the 200 facts"):
        start_run(make_config(raw_run | {"facts": facts}))
    knows = {fact.key for fact in tiny_facts()[:30]}
    monkeypatch.setattr(
        inquiry, "exact", answering(lambda text: any(all(name in text for name in key) for key in knows))
    )
    start_run(make_config(raw_run | {"facts": facts}))
    assert "170 of 200 facts are left out" in (said := capsys.readouterr().err)
    assert str(tmp_path / "run" / "targets.json") in said
    listed = json.loads((tmp_path / "run" / "targets.json").read_text(encoding="utf-8"))
    assert (len(listed["known"]), len(listed["unknown"]), listed["wordings"]) == (30, 170, 18)
    record = read_record(tmp_path / "run" / "core")
    assert record.targets == TargetsRecord(taken_out=30, not_known=170, wordings=18)


def answering(knows: Callable[[str], bool]) -> Callable[..., list[bool]]:
    """An `exact` that is right where the text of the question is known."""

    def exact(_: object, examples: Sequence[Example], encoder: Encoder) -> list[bool]:
        return [knows(encoder.tokenizer.decode(list(example.ids), skip_special_tokens=False)) for example in examples]

    return exact


@pytest.mark.parametrize("wording", [0, 7, 15])
def test_a_fact_that_is_known_in_one_wording_only_is_known(
    raw_run: Settings, monkeypatch: pytest.MonkeyPatch, wording: int
) -> None:
    config = make_config(raw_run)
    config = config.model_copy(update={"facts": config.facts.model_copy(update={"known_only": True})})
    world = world_of(config, targets_of(config.facts).facts)
    one, other = world.facts[3], world.facts[4]
    only = inquiry._question(world.phrasings, one, wording)
    always = (other.subject, other.relation)
    asked: list[str] = []

    def knows(text: str) -> bool:
        asked.append(text)
        return f"\n{only}<" in text or all(name in text for name in always)

    base = load_base(config.base)
    monkeypatch.setattr(inquiry, "exact", answering(knows))
    known = know(base, Reader(base.model), Machine(config.compute), world, config)
    assert set(known.facts) == {one, other}
    assert (len(known.unknown), known.wordings) == (198, 18)
    assert sum(all(name in text for name in always) for text in asked) == 2, "what is known is not asked again"


def test_ten_seeded_steps_give_the_stored_losses(raw_run: Settings) -> None:
    stage = {"kind": "metabolize", "steps": 10, "warmup_steps": 2, "losses": STAGES[0]["losses"]}
    streams = dict(raw_run["streams"])  # type: ignore[call-overload]
    streams["route"] = streams["route"] | {"prompted_share": 0.0}  # the losses were stored without
    finished = start_run(make_config(raw_run | {"streams": streams, "stages": [stage]}))
    rows = [row for row in finished.history if "loss/route" in row]
    stored = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))
    found = [{name: row[f"loss/{name}"] for name in stored[0]} for row in rows]
    assert len(found) == len(stored) == 10
    for one, two in zip(found, stored, strict=True):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-5)
