"""A core as it is served, and the place where one is swapped for another while questions are answered.

`ServedCore` is finished: a folder, its certificate, its engine, its orchestrator. `CoreSlot` changes: it leases the
current core to each answer, and a swap leaves the old one in peace until its last answer is given.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from knowledge_store.protocol import PROTOCOL_VERSION
from service.engine.base import Engine
from service.errors import CoreUnusable
from service.event import Event
from service.question import Question
from service.trace import Answer

CERTIFICATE = "core.json"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a core's folder says of it: the document that the trainer wrote, as it stands."""

    protocol_version: int
    document: Mapping[str, Any]

    @property
    def passed(self) -> bool | None:
        """Whether the core passed its gate; None where it was never measured."""
        report = self.document.get("report")
        passed = report.get("passed") if isinstance(report, dict) else None
        return passed if isinstance(passed, bool) else None


def read_certificate(folder: Path) -> Certificate | None:
    """Read the certificate in a core's folder; None where there is none.

    Raises:
        CoreUnusable: there is no such folder, the certificate cannot be read, or it names no protocol version or one
            that this service does not speak.
    """
    if not folder.is_dir():
        raise CoreUnusable(f"there is no folder {folder}; name a core's folder with --core")
    file = folder / CERTIFICATE
    if not file.is_file():
        return None
    try:
        document = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CoreUnusable(f"{file} cannot be read as JSON: {error}") from error
    version = document.get("protocol_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise CoreUnusable(f"{file} names no protocol_version; this service speaks version {PROTOCOL_VERSION}")
    if version != PROTOCOL_VERSION:
        raise CoreUnusable(
            f"{folder} speaks protocol version {version} and this service version {PROTOCOL_VERSION}; "
            "train the core again, or serve it with the release that it was made for"
        )
    return Certificate(version, document)


class Answerer(Protocol):
    """What answers questions: an `Orchestrator`, or a scripted one in a test."""

    async def answer(self, question: Question) -> Answer:
        """Answer at once."""
        ...

    def stream(self, question: Question) -> AsyncGenerator[Event, None]:
        """Answer event by event."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ServedCore:
    """A core that answers."""

    name: str
    folder: Path
    certificate: Certificate | None
    engine: Engine
    engine_choice: str
    """Which engine this is, and why, in words for people."""
    orchestrator: Answerer
    created: int
    """When it was loaded, in Unix time."""

    @property
    def statement(self) -> str:
        """What is proved of the core, in a sentence."""
        if self.certificate is None:
            return f"{self.name} has no certificate: nobody measured what it forgot and what it kept"
        if self.certificate.passed is None:
            return f"{self.name} has a certificate without a measured report; run `metabolism evaluate`"
        return f"{self.name} {'passed' if self.certificate.passed else 'FAILED'} its gate; its report is beside this"


@dataclass(frozen=True, slots=True)
class Swap:
    """What a swap did. `drained` is False where old answers still ran when the time for them was over."""

    previous: str
    current: str
    drained: bool


class CoreSlot:
    """Holds the core that is served."""

    def __init__(self, core: ServedCore) -> None:
        self._current = core
        self._leases: dict[ServedCore, int] = {core: 0}
        self._idle = asyncio.Condition()
        self._swapping = asyncio.Lock()
        self._names = {core.name}

    @property
    def current(self) -> ServedCore:
        """The core that the next question gets."""
        return self._current

    def knows(self, name: str) -> bool:
        """Whether a client may name a core so: the one that is served, or one that it took the place of."""
        return name in self._names

    @asynccontextmanager
    async def lease(self) -> AsyncGenerator[ServedCore, None]:
        """Hold the current core while the context is open: it is not closed before."""
        core = self._current
        self._leases[core] += 1
        try:
            yield core
        finally:
            self._leases[core] -= 1
            if core is not self._current and self._leases[core] == 0:
                async with self._idle:
                    self._idle.notify_all()

    async def swap(self, load: Callable[[], Awaitable[ServedCore]], *, drain_s: float) -> Swap:
        """Load another core beside the current one, check it, switch, and close the old one after its last answer.

        Raises:
            CoreUnusable, EngineError: the other core cannot be served; the current one goes on as before.
        """
        async with self._swapping:
            fresh = await load()
            try:
                await fresh.engine.check()
            except BaseException:
                await fresh.engine.close()
                raise
            old, self._current = self._current, fresh
            self._leases[fresh] = 0
            self._names.add(fresh.name)
            drained = await self._drain(old, drain_s)
            del self._leases[old]
            await old.engine.close()
            return Swap(old.name, fresh.name, drained)

    async def close(self) -> None:
        """Close the current core."""
        await self._current.engine.close()

    async def _drain(self, core: ServedCore, drain_s: float) -> bool:
        try:
            async with self._idle, asyncio.timeout(drain_s):
                await self._idle.wait_for(lambda: self._leases[core] == 0)
        except TimeoutError:
            return False
        return True
