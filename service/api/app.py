"""Makes the app of resources that somebody else built: routers, errors, the edge, the OpenAPI document."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from service.api import admin, chat, health, knowledge, model, reason, refusal, update
from service.api.edge import Edge
from service.api.resource import Resources

_DESCRIPTION = """
A *logic core* reasons; every fact it needs is read, at the step that needs it, from a *symbolic RAM* that anyone with
the right key may change while it runs. Each answer names the facts it stands on and the one generation that it saw.

**For applications**: `POST /v1/chat/completions` works with any OpenAI client; `POST /v1/reason` gives the whole proof.
**For operators**: `POST /update_knowledge` changes facts, all of a request or nothing; the next question sees them.

Every error has one shape, whatever the route: `{"error": {"message", "type", "param", "code"}}`. Every response carries
`X-Request-Id`; send your own to find a request in the log. 429 and 503 carry `Retry-After`.
"""
_TAGS = [
    {"name": "answers", "description": "Ask. Scope `infer`."},
    {"name": "knowledge", "description": "Read and change facts. Scopes `read` and `write`."},
    {"name": "core", "description": "The served core. Scopes `infer` and, to swap it, `admin`."},
    {
        "name": "watching",
        "description": "For probes and Prometheus; with the setting guard_watch, scope `read`.",
    },
]


def create_app(resources: Resources, *, version: str) -> FastAPI:
    """Make the app. It closes what `resources` holds when it shuts down."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        await resources.close()

    app = FastAPI(
        title="Digital Metabolism",
        summary="Neural CPU + Symbolic RAM",
        description=_DESCRIPTION,
        version=version,
        openapi_tags=_TAGS,
        lifespan=lifespan,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.resources = resources
    for router in (
        reason.router,
        chat.router,
        model.router,
        update.router,
        knowledge.reading,
        knowledge.writing,
        admin.router,
        health.router,
    ):
        app.include_router(router)
    refusal.install(app)
    app.add_middleware(
        Edge,
        metrics=resources.metrics,
        limits={update.PATH: resources.settings.max_update_bytes},
        default_limit=resources.settings.max_question_bytes,
    )
    if resources.keys is None:
        _document_no_keys(app)
    _watch(resources)
    return app


def _document_no_keys(app: FastAPI) -> None:
    """Let the OpenAPI document of a server without keys ask for none."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        for routes in document["paths"].values():
            for route in routes.values():
                route.pop("security", None)
        document.get("components", {}).pop("securitySchemes", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _watch(resources: Resources) -> None:
    def gauges() -> dict[str, float]:
        gate = resources.serving.gate
        return {
            "answers_running": gate.running,
            "questions_waiting": gate.waiting,
            "writes_waiting": resources.writer.waiting,
            "generation": resources.store.head,
        }

    resources.metrics.watch(gauges)
    core = resources.serving.slot.current
    resources.metrics.show_core(core.name, core.engine_choice)
