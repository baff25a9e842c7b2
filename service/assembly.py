"""Builds the service of its settings: the only file of the package that knows every concrete part.

Called by ``command.py`` for `serve` and `ask`, and by the facade. Reads no environment, configures no logging.
"""

import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from knowledge_store.store import Store
from service.api.resource import CoreLoader, Resources
from service.audit import AuditLog
from service.codec import Codec
from service.core import CoreSlot, ServedCore, read_certificate
from service.detect.choice import Detectors, choose_detectors
from service.engine.select import choose_engine
from service.errors import CoreUnusable
from service.limit import Gate, KeyLimit
from service.metric import Metrics
from service.orchestrator import Orchestrator
from service.security import KeyRing
from service.serving import Serving
from service.settings import Settings
from service.tracing import make_tracer
from service.writer import Replays, Writer


async def load_core(
    folder: Path,
    engine: str,
    store: Store,
    *,
    detectors: Detectors = "call",
    certified: bool = False,
    wait_s: float = 0.0,
) -> ServedCore:
    """Load the core in `folder` on the engine called `engine`; with `certified` only if it carries a certificate.

    `detectors` names what finds the steps that need a fact. An engine given by its URL has `wait_s` to answer.

    Raises:
        CoreUnusable: the folder holds no core that can be served.
        EngineError, SettingsError: there is no such engine, or it does not answer.
    """
    certificate = read_certificate(folder)
    if certified and certificate is None:
        raise CoreUnusable(f"{folder} has no core.json, so nothing says which protocol version the core speaks")
    codec = Codec.load(folder)
    chosen = await choose_engine(engine, folder, wait_s=wait_s)
    name = Path(os.path.abspath(folder)).name  # noqa: PTH100, ASYNC240 - no file is touched
    return ServedCore(
        name=name,
        folder=folder,
        certificate=certificate,
        engine=chosen.engine,
        engine_choice=f"{chosen.name}: {chosen.reason}",
        orchestrator=Orchestrator(chosen.engine, codec, store, core=name, detectors=choose_detectors(detectors)),
        created=int(time.time()),
    )


def open_store(settings: Settings) -> Store:
    """Open the store that the settings name.

    Raises:
        StoreUnavailable: it cannot be opened.
    """
    return Store.open(settings.store)


def assemble(settings: Settings, core: ServedCore, store: Store, keys: KeyRing | None) -> Resources:
    """Build everything around a loaded core and an open store.

    Raises:
        SettingsError: traces are asked for and cannot be made.
    """
    metrics = Metrics()
    gate = Gate(settings.concurrent, settings.waiting, settings.wait_s)
    tracer = make_tracer(enabled=settings.otel)
    return Resources(
        settings=settings,
        store=store,
        serving=Serving(CoreSlot(core), gate, metrics, tracer, log_values=settings.log_values),
        writer=Writer(),
        metrics=metrics,
        audit=AuditLog(settings.audit_file),
        key_limit=KeyLimit(settings.key_requests_per_minute, settings.key_concurrent),
        load_core=_loader(settings, store),
        replays=Replays(),
        keys=keys,
    )


def _loader(settings: Settings, store: Store) -> CoreLoader:
    async def load(folder: Path, engine: str | None) -> ServedCore:
        return await load_core(folder, engine or settings.engine, store, detectors=settings.detectors, certified=True)

    return load


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[ServedCore, None]:
    """Open store and core for somebody who asks without a server; close both at the end. Raises as `load_core`."""
    store = open_store(settings)
    try:
        core = await load_core(settings.core, settings.engine, store, detectors=settings.detectors)
        try:
            yield core
        finally:
            await core.engine.close()
    finally:
        store.close()
