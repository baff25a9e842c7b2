"""A real server, on a real port, with a real store; only the model is replaced, by a core that recites."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from knowledge_store.change import Change, FactChange
from knowledge_store.fact import Fact
from knowledge_store.store import Store
from service import server
from service.api.app import create_app
from service.api.resource import Resources
from service.assembly import assemble
from service.codec import Codec
from service.core import Certificate, ServedCore, read_certificate
from service.errors import CoreUnusable
from service.orchestrator import Orchestrator
from service.security import KeyRing, Scope
from service.settings import Settings
from tests.service.api.reciting import RecitingEngine

FACTS = (
    ("Kenya", "capital", "Nairobi", "geography"),
    ("Kenya", "continent", "Africa", "geography"),
    ("Peru", "capital", "Lima", "geography"),
    ("Helium", "symbol", "He", "elements"),
)


def reciting_core(
    codec: Codec, store: Store, name: str = "reciter", certificate: Certificate | None = None, **engine: Any
) -> ServedCore:
    """A served core that recites."""
    reciter = RecitingEngine(codec, **engine)
    return ServedCore(
        name=name,
        folder=Path(name),
        certificate=certificate,
        engine=reciter,
        engine_choice="reciting: a test",
        orchestrator=Orchestrator(reciter, codec, store, core=name),
        created=0,
    )


@dataclass
class Running:
    """A running server, with what a test wants to reach behind it."""

    url: str
    resources: Resources
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> RecitingEngine:
        """The engine of the served core."""
        engine = self.resources.serving.slot.current.engine
        assert isinstance(engine, RecitingEngine)
        return engine

    @property
    def store(self) -> Store:
        """The store behind the server."""
        return self.resources.store

    def client(self, scope: str | None = None, **more: Any) -> httpx.Client:
        """A client, with the key of a scope if the server has keys."""
        headers = {"Authorization": f"Bearer {self.tokens[scope]}"} if scope else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, **more)


StartServer = Callable[..., Running]


@pytest.fixture
def start_server(tmp_path: Path, demo_codec: Codec) -> Iterator[StartServer]:
    """Give a function that starts a server with these settings; all are stopped at the end."""
    with ExitStack() as stack:
        yield lambda **given: stack.enter_context(serving(tmp_path, demo_codec, **given))


@contextmanager
def serving(
    folder: Path,
    codec: Codec,
    *,
    with_keys: bool = False,
    pause_s: float = 0.0,
    certificate: Certificate | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """Run a server with these settings and two small modules."""
    store = Store.open(folder / "store.sqlite")
    for module in ("geography", "elements") if store.head == 0 else ():
        rows = [Fact(*fact) for fact in FACTS if fact[3] == module]
        store.commit(Change(module, "merge", [FactChange(fact) for fact in rows]))
    given = Settings.read({"audit": folder / "audit.jsonl", **settings})
    keys = KeyRing(folder / "keys.json") if with_keys else None
    tokens = {} if keys is None else {scope.value: keys.create(scope.value, [scope])[1] for scope in Scope}

    async def load(path: Path, _: str | None) -> ServedCore:
        if read_certificate(path) is None:
            raise CoreUnusable(f"{path} has no core.json")
        return reciting_core(codec, store, path.name, pause_s=pause_s)

    core = reciting_core(codec, store, certificate=certificate, pause_s=pause_s)
    resources = replace(assemble(given, core, store, keys), load_core=load)
    url, stop = _serve(resources)
    try:
        yield Running(url, resources, tokens)
    finally:
        stop()


def _serve(resources: Resources) -> tuple[str, Callable[[], None]]:
    ready = threading.Event()
    taken = server.take_port("127.0.0.1", 0)
    running = server.make_server(create_app(resources, version="test"), ready=ready.set, drain_s=1)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[taken])))
    thread.start()
    assert ready.wait(20), "the server did not start"

    def stop() -> None:
        running.should_exit = True
        thread.join(20)
        taken.close()

    return server.address_of(taken), stop


@pytest.fixture
def running(start_server: StartServer) -> Running:
    """A server without keys."""
    return start_server()


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    """A client of it."""
    with running.client() as client:
        yield client


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory, demo_codec: Codec) -> Iterator[httpx.Client]:
    """A client of one server for a whole file: for tests that change nothing."""
    with serving(tmp_path_factory.mktemp("shared"), demo_codec) as running, running.client() as client:
        yield client


def wait_until(condition: Callable[[], bool], *, within_s: float) -> float:
    """Wait until `condition` holds; give how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within_s, f"it did not happen within {within_s} s"
        time.sleep(0.005)
    return time.monotonic() - started


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """Let the service log errors only."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()
