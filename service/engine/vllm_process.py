"""A vLLM server of our own: started, watched, started again when it dies, stopped with all its processes.

Speaks to it through `VllmEngine`, and is an `Engine` itself: while the server is down it says so at once. Owns the
command line of vLLM and nothing of its HTTP.
"""

import asyncio
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from service.engine.base import Chunk, Sampling
from service.engine.vllm_http import VllmEngine
from service.errors import EngineUnavailable

_LOG_TAIL_LINES = 30
_POLL_S = 0.25
_STOP_S = 12.0
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
_STEADY_S = 60.0


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How the server is started. None leaves a choice to the build of vLLM that is installed."""

    max_context_tokens: int = 2048
    gpu_memory_share: float | None = None
    cpu_cache_gib: int = 1
    start_timeout_s: float = 600.0
    extra: tuple[str, ...] = ()
    """More arguments for vLLM's own command line."""


class VllmProcess:
    """A vLLM server as a child process."""

    def __init__(
        self,
        folder: Path,
        options: VllmOptions | None = None,
        *,
        command: Callable[[Path, int, "VllmOptions"], list[str]] | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self._options = options or VllmOptions()
        self._command = command or vllm_command
        descriptor, name = tempfile.mkstemp(prefix="metabolism-vllm-", suffix=".log")
        os.close(descriptor)
        self.log_path = Path(name)
        self._process: asyncio.subprocess.Process | None = None
        self._engine: VllmEngine | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._why_down = "it was not started"
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process that guards the server, while there is one."""
        return self._process.pid if self._process is not None else None

    @property
    def url(self) -> str | None:
        """Where the server answers, while it does."""
        return self._engine.url if self._engine is not None else None

    async def start(self) -> None:
        """Start the server and wait until it is healthy; from then on it is watched.

        Raises:
            EngineUnavailable: it ended or was not healthy in time; the end of its log is in the message.
        """
        try:
            await self._launch()
        except BaseException:
            await self.close()
            raise
        self._watcher = asyncio.create_task(self._watch())

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str
    ) -> AsyncGenerator[Chunk, None]:
        """Continue `prompt_ids`; see `Engine`."""
        chunks = self._running().generate(prompt_ids, sampling, request_id=request_id)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    async def check(self) -> None:
        """Ask the server's health route."""
        await self._running().check()

    async def close(self) -> None:
        """Stop watching, stop the server with all its processes, and drop its log."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        await self._stop()
        self._why_down = "it was closed"
        self.log_path.unlink(missing_ok=True)

    def _running(self) -> VllmEngine:
        if self._engine is None:
            raise EngineUnavailable(f"the vLLM server is down: {self._why_down}")
        return self._engine

    # --- Starting and stopping ---------------------------------------------------------------------------------------

    async def _launch(self) -> None:
        port = _free_port()
        command = self._command(self._folder, port, self._options)
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(Path(__file__).with_name("guard.py")),
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | vllm_environment(self._options),
                start_new_session=True,
            )
        engine = VllmEngine(f"http://127.0.0.1:{port}")
        try:
            await self._wait_until_healthy(self._process, engine)
        except BaseException:
            await engine.close()
            raise
        self._engine = engine

    async def _wait_until_healthy(self, process: asyncio.subprocess.Process, engine: VllmEngine) -> None:
        deadline = time.monotonic() + self._options.start_timeout_s
        while True:
            if process.returncode is not None:
                raise EngineUnavailable(f"vLLM ended with status {process.returncode} while starting.{self._tail()}")
            try:
                await engine.check()
            except EngineUnavailable:
                if time.monotonic() > deadline:
                    limit_s = self._options.start_timeout_s
                    raise EngineUnavailable(f"vLLM was not healthy within {limit_s:g} s.{self._tail()}") from None
                await asyncio.sleep(_POLL_S)
            else:
                return

    async def _watch(self) -> None:
        """Start the server again whenever it ends, waiting longer each time that it does not stay up."""
        failures = 0
        while True:
            assert self._process is not None, "a launched server has a process"
            started = time.monotonic()
            status = await self._process.wait()
            failures = 0 if time.monotonic() - started > _STEADY_S else failures + 1
            self._why_down = f"it ended with status {status} and is being started again.{self._tail()}"
            await self._drop_engine()
            while True:
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                self.restarts += 1
                try:
                    await self._launch()
                except EngineUnavailable as error:
                    self._why_down = str(error)
                    failures += 1
                    await self._stop()
                else:
                    break

    async def _stop(self) -> None:
        await self._drop_engine()
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None, "the guard is on a leash"
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _drop_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    def _tail(self) -> str:
        """The end of the server's log, for an error message."""
        try:
            lines = self.log_path.read_text("utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(["", *lines[-_LOG_TAIL_LINES:]])


def vllm_command(folder: Path, port: int, options: VllmOptions) -> list[str]:
    """Write vLLM's command line for this machine's build of it."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", str(options.max_context_tokens)]
    command += ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"]
    share = options.gpu_memory_share
    if is_cpu_build():
        # Blocks of 32 are the CPU's smallest: with its default of 128 a resume reuses next to nothing.
        command += ["--block-size", "32"]
        share = share or 0.3
    if share is not None:
        command += ["--gpu-memory-utilization", str(share)]
    return [*command, *options.extra]


def vllm_environment(options: VllmOptions) -> dict[str, str]:
    """What the server needs in its environment, beyond ours."""
    quiet = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    return quiet | ({"VLLM_CPU_KVCACHE_SPACE": str(options.cpu_cache_gib)} if is_cpu_build() else {})


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the build for CPUs."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
