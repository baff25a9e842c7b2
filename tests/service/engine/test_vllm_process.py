"""A server of our own: started, watched, started again, and never left behind. The server is a small fake program."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from service.engine.base import Engine, Sampling
from service.engine.vllm_http import VllmEngine
from service.engine.vllm_process import VllmOptions, VllmProcess, vllm_command, vllm_environment
from service.errors import EngineUnavailable

FAKE = Path(__file__).with_name("fake_vllm.py")


def fake(_folder: Path, port: int, _options: VllmOptions) -> list[str]:
    return [sys.executable, str(FAKE), str(port)]


def failing(_folder: Path, port: int, _options: VllmOptions) -> list[str]:
    return [sys.executable, str(FAKE), str(port), "--fail"]


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[VllmProcess]:
    started = VllmProcess(tmp_path, command=fake)
    await started.start()
    yield started
    await started.close()


def family(pid: int) -> list[psutil.Process]:
    guard = psutil.Process(pid)
    return [guard, *guard.children(recursive=True)]


async def until(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


def gone(processes: list[psutil.Process]) -> bool:
    def ended(process: psutil.Process) -> bool:
        try:
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:  # it ended between the two questions
            return True

    return all(map(ended, processes))


async def one_token(engine: Engine) -> tuple[int, ...]:
    sampling = Sampling(1, stream=False)
    (chunk,) = [chunk async for chunk in engine.generate([1, 2], sampling, request_id="r")]
    return chunk.ids


async def test_a_started_server_serves_and_closing_ends_all_its_processes(tmp_path: Path) -> None:
    process = VllmProcess(tmp_path, command=fake)
    await process.start()
    await process.check()
    assert await one_token(process) == (7,)
    assert process.pid is not None
    members = family(process.pid)
    assert len(members) == 3
    await process.close()
    assert gone(members)
    assert not process.log_path.exists()
    with pytest.raises(EngineUnavailable, match="closed"):
        await process.check()


async def test_a_server_that_is_killed_is_started_again_and_says_so_meanwhile(process: VllmProcess) -> None:
    assert process.pid is not None
    _, server, worker = family(process.pid)
    server.kill()
    await until(lambda: process.url is None)
    with pytest.raises(EngineUnavailable, match="started again"):
        await one_token(process)
    await until(lambda: process.url is not None)
    assert await one_token(process) == (7,)
    assert process.restarts == 1
    assert gone([server, worker])


async def test_a_server_elsewhere_is_down_at_once_and_serves_again_within_a_second_of_its_return() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = VllmEngine(f"http://127.0.0.1:{port}")
    with serving_fake(port):
        await until_healthy(engine)
        assert await one_token(engine) == (7,)
    asked = time.monotonic()
    with pytest.raises(EngineUnavailable):
        await one_token(engine)
    assert time.monotonic() - asked < 1
    with serving_fake(port):
        returned = await until_healthy(engine)
        assert await one_token(engine) == (7,)
        assert time.monotonic() - returned < 1
    await engine.close()


@contextmanager
def serving_fake(port: int) -> Iterator[None]:
    """Run the fake server until the end, which is a `kill -9` of it and its child."""
    process = subprocess.Popen([sys.executable, str(FAKE), str(port)])
    try:
        yield
    finally:
        for it in family(process.pid):
            it.kill()
        process.wait()


async def until_healthy(engine: VllmEngine) -> float:
    """Wait for the server; give when it answered."""
    for _ in range(600):
        with suppress(EngineUnavailable):
            await engine.check()
            return time.monotonic()
        await asyncio.sleep(0.05)
    raise AssertionError("the fake server did not start")


async def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    process = VllmProcess(tmp_path, command=failing)
    with pytest.raises(EngineUnavailable, match="no weights here"):
        await process.start()
    assert process.pid is None


async def test_a_server_that_is_never_healthy_is_given_up(tmp_path: Path) -> None:
    def deaf(_folder: Path, _port: int, _options: VllmOptions) -> list[str]:
        return [sys.executable, "-c", "import time; time.sleep(60)"]

    process = VllmProcess(tmp_path, VllmOptions(start_timeout_s=0.5), command=deaf)
    with pytest.raises(EngineUnavailable, match="not healthy within"):
        await process.start()
    assert process.pid is None


OWNER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.service.engine.test_vllm_process import VllmProcess, fake
async def main():
    process = VllmProcess(Path("."), command=fake)
    await process.start()
    print("guard", process.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_is_left_behind_when_the_service_is_killed(end: signal.Signals) -> None:
    root = Path(__file__).parents[3]
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(root)], stdout=subprocess.PIPE, text=True, cwd=root)
    assert owner.stdout is not None
    match = re.match(r"guard (\d+)", owner.stdout.readline())
    assert match, "the owner tells its guard"
    members = family(int(match[1]))
    assert len(members) == 3
    owner.send_signal(end)
    owner.wait()
    deadline = time.monotonic() + 12
    while not gone(members):
        assert time.monotonic() < deadline, f"left behind: {members}"
        time.sleep(0.05)


def test_no_process_is_left_behind_when_the_guard_is_killed(tmp_path: Path) -> None:
    async def kill_guard() -> list[psutil.Process]:
        process = VllmProcess(tmp_path, command=fake)
        await process.start()
        assert process.pid is not None
        members = family(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        await until(lambda: gone(members[:2]))
        await process.close()
        return members

    members = asyncio.run(kill_guard())
    members[2].kill()  # the fake's own child: a real server ends its workers when it is told to end
    assert gone(members[:2])


def test_a_cpu_build_gets_small_blocks_and_its_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("service.engine.vllm_process.is_cpu_build", lambda: True)
    command = vllm_command(tmp_path, 8123, VllmOptions())
    assert command[command.index("--block-size") + 1] == "32"
    assert vllm_environment(VllmOptions(cpu_cache_gib=2))["VLLM_CPU_KVCACHE_SPACE"] == "2"
    monkeypatch.setattr("service.engine.vllm_process.is_cpu_build", lambda: False)
    command = vllm_command(tmp_path, 8123, VllmOptions(gpu_memory_share=0.7))
    assert "--block-size" not in command
    assert command[command.index("--gpu-memory-utilization") + 1] == "0.7"
    assert "VLLM_CPU_KVCACHE_SPACE" not in vllm_environment(VllmOptions())
