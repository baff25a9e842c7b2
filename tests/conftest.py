"""What every test may count on: no network but the loopback, the demo core and modules, engines started once."""

import asyncio
import importlib.util
import ipaddress
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from knowledge_store.change import Change, FactChange
from knowledge_store.fact import Fact
from knowledge_store.store import Store
from service.codec import Codec
from service.engine.vllm_process import VllmProcess

ROOT = Path(__file__).parent.parent
DEMO_CORE = ROOT / "models" / "demo-core"

# A busy machine is slow to draw and to run examples; that is no fault of what is tested.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session", autouse=True)
def loopback_only() -> Iterator[None]:
    """Refuse every connection that would leave this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            original = getattr(socket.socket, name)

            def guarded(self: socket.socket, address: Any, original: Any = original) -> Any:
                _require_loopback(self.family, address)
                return original(self, address)

            patch.setattr(socket.socket, name, guarded)
        yield


def _require_loopback(family: int, address: Any) -> None:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = address[0]
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = host == "localhost"
    if not inside:
        raise AssertionError(f"a test tried to reach {host}: only the loopback address is allowed")


@pytest.fixture(scope="session")
def demo_core() -> Path:
    """The folder of the demo core."""
    return DEMO_CORE


@pytest.fixture(scope="session")
def demo_codec() -> Codec:
    """The demo core's codec."""
    return Codec.load(DEMO_CORE)


@pytest.fixture
def demo_store(tmp_path: Path) -> Iterator[Store]:
    """A store of this test's own with the four demo modules."""
    store = Store.open(tmp_path / "demo.sqlite")
    for path in sorted((ROOT / "knowledge").glob("*.ndjson")):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        changes = [FactChange(Fact(row["subject"], row["relation"], row["value"], path.stem)) for row in rows]
        store.commit(Change(path.stem, "replace", changes))
    yield store
    store.close()


@pytest.fixture(scope="session")
def embedded_engine() -> Iterator[Any]:
    """The embedded engine with the demo core, loaded once."""
    pytest.importorskip("torch")
    from service.engine.embedded import EmbeddedEngine

    engine = EmbeddedEngine.load(DEMO_CORE)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def vllm_process() -> Iterator[VllmProcess]:
    """A vLLM server of our own with the demo core, started once, in a loop of its own."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed on this machine")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    process = VllmProcess(DEMO_CORE)
    try:
        asyncio.run_coroutine_threadsafe(process.start(), loop).result(600)
        yield process
    finally:
        asyncio.run_coroutine_threadsafe(process.close(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="session")
def vllm_url(vllm_process: VllmProcess) -> str:
    """Where the vLLM server of this session answers."""
    assert vllm_process.url is not None, "a started server has an address"
    return vllm_process.url
