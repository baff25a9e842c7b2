"""``/health/live`` (does the process run?), ``/health/ready`` (would a question be answered now?), ``/metrics``."""

from typing import Literal

from fastapi import Response
from pydantic import BaseModel

from service.api.guard import guarded_router
from service.api.refusal import documented
from service.api.resource import FromApp
from service.metric import CONTENT_TYPE
from service.security import Scope

router = guarded_router(Scope.READ, tags=["watching"], if_guarded=True)


class Live(BaseModel):
    """The process runs."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """A question would be answered now."""

    status: Literal["ready"] = "ready"
    core: str
    engine: str
    generation: int
    running: int
    waiting: int


@router.get("/health/live", responses=documented())
async def show_live() -> Live:
    """Say that the process runs. Restart it when this fails."""
    return Live()


@router.get("/health/ready", responses=documented())
async def show_ready(resources: FromApp) -> Ready:
    """Say whether a question would be answered now; 503 with the reason where not. Send no traffic when this fails."""
    core = resources.serving.slot.current
    generation = resources.store.head
    await core.engine.check()
    gate = resources.serving.gate
    return Ready(
        core=core.name, engine=core.engine_choice, generation=generation, running=gate.running, waiting=gate.waiting
    )


@router.get("/metrics", response_class=Response, responses={**documented(), 200: {"content": {"text/plain": {}}}})
async def show_metrics(resources: FromApp) -> Response:
    """Show what is counted, in Prometheus' text format."""
    return Response(resources.metrics.render(), headers={"Content-Type": CONTENT_TYPE})
