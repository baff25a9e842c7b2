"""Chooses the engine that serves a core, and says why in words.

Called by the composition of the service and by the command line. Knows every engine; no engine knows it.
"""

import asyncio
import importlib.util
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from service.engine.base import Engine
from service.engine.embedded import EmbeddedEngine
from service.engine.vllm_http import VllmEngine
from service.engine.vllm_process import VllmOptions, VllmProcess, is_cpu_build
from service.errors import CoreUnusable, EngineUnavailable, SettingsError

_URL = re.compile(r"https?://\S+")
_SMALL_MIB = 256
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Chosen:
    """A running engine; `name` is ``vllm``, ``embedded`` or its address, `reason` says why it was chosen."""

    engine: Engine
    name: str
    reason: str


async def choose_engine(
    name: str, folder: Path, *, options: VllmOptions | None = None, api_key: str | None = None, wait_s: float = 0.0
) -> Chosen:
    """Start or reach the engine called `name` (``auto``, ``vllm``, ``embedded`` or a URL) for the core in `folder`.

    `auto` takes vLLM where it is installed, except on a CPU for a core so small that this process serves it sooner
    than vLLM starts, and the embedded engine elsewhere. An engine given by its URL may start beside this process: it
    has `wait_s` to answer.

    Raises:
        SettingsError: there is no engine of this name, or it is not installed.
        EngineUnavailable: it was started or reached, and is not healthy.
        CoreUnusable: the folder holds no model.
    """
    _require_core(folder)
    if _URL.fullmatch(name):
        remote = VllmEngine(name, api_key=api_key)
        await _await_health(remote, wait_s)
        return Chosen(remote, name, f"a vLLM server answers at {name}, as asked")
    if name not in ("auto", "vllm", "embedded"):
        raise SettingsError(f"there is no engine {name!r}; write auto, vllm, embedded or a vLLM server's URL")
    reason = "as asked"
    if name == "auto":
        name, reason = _decide(folder)
    if name == "embedded":
        return Chosen(await asyncio.to_thread(EmbeddedEngine.load, folder), name, reason)
    if not is_installed("vllm"):
        raise SettingsError("vLLM is not installed here; install it, or choose --engine embedded or a server's URL")
    process = VllmProcess(folder, options or VllmOptions(max_context_tokens=_context_tokens(folder)))
    await process.start()
    return Chosen(process, name, reason)


async def _await_health(engine: Engine, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return await engine.check()
        except EngineUnavailable:
            if time.monotonic() + _RETRY_S > deadline:
                await engine.close()
                raise
        await asyncio.sleep(_RETRY_S)


def is_installed(package: str) -> bool:
    """Whether `package` could be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def _decide(folder: Path) -> tuple[str, str]:
    size_mib = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 2**20
    has_torch = is_installed("torch") and is_installed("transformers")
    if not is_installed("vllm"):
        return "embedded", "vLLM is not installed here; transformers runs the core in this process"
    if is_cpu_build() and has_torch and size_mib < _SMALL_MIB:
        return "embedded", (
            f"the core has {size_mib:.0f} MiB and this vLLM is a CPU build: this process serves it at once, vLLM would "
            "take about a minute to start; choose --engine vllm for many requests at a time"
        )
    where = "a CPU" if is_cpu_build() else "a GPU"
    return "vllm", f"vLLM for {where} is installed, and serves many requests at a time"


def _require_core(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise CoreUnusable(f"{folder} holds no config.json: it is no core's folder; name one with --core")


def _context_tokens(folder: Path) -> int:
    """How much a server of our own lets a request hold: what the core reads, up to what fits a small machine."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError as error:
        raise CoreUnusable(f"{folder / 'config.json'} is not JSON: {error}") from error
    limit = 8192 if is_cpu_build() or sys.platform != "linux" else 32768
    return min(int(config.get("max_position_embeddings") or limit), limit)
