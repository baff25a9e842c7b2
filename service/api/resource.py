"""What the routes work with, made once by whoever makes the app, and found by them through the request."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Scope

from knowledge_store.store import Store
from service.api.knowledge_schema import UpdateReply
from service.audit import AuditLog
from service.core import ServedCore
from service.limit import KeyLimit
from service.metric import Metrics
from service.security import KeyRing
from service.serving import Serving
from service.settings import Settings
from service.writer import Replays, Writer

CoreLoader = Callable[[Path, str | None], Awaitable[ServedCore]]
"""Loads the core in a folder, on an engine of one's choice or the service's."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that a route may need."""

    settings: Settings
    store: Store
    serving: Serving
    writer: Writer
    metrics: Metrics
    audit: AuditLog
    key_limit: KeyLimit
    load_core: CoreLoader
    replays: Replays[UpdateReply]
    keys: KeyRing | None = None
    """None where the service asks for no keys."""

    async def close(self) -> None:
        """Finish the writes that were begun, then close the core, the store and the audit log."""
        await self.writer.close()
        await self.serving.slot.close()
        self.store.close()
        self.audit.close()


def resources_of(scope: Scope) -> Resources:
    """Give the resources of the app that serves this request."""
    resources: Resources = scope["app"].state.resources
    return resources


def _of_request(request: Request) -> Resources:
    return resources_of(request.scope)


FromApp = Annotated[Resources, Depends(_of_request)]
"""A route's parameter that gets the resources."""
