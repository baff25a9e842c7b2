"""``GET /v1/models``, ``GET /v1/core``: which core is served, and what is proved of it."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from knowledge_store.protocol import PROTOCOL_VERSION
from service.api.chat import ALIAS
from service.api.guard import guarded_router
from service.api.refusal import Refusal, documented
from service.api.resource import FromApp
from service.core import ServedCore
from service.security import Scope

router = guarded_router(Scope.INFER, tags=["core"])


class Model(BaseModel):
    """OpenAI's model object."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "digital-metabolism"


class ModelList(BaseModel):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: list[Model]


class CoreReply(BaseModel):
    """The served core and its certificate."""

    name: str
    engine: str = Field(description="Which engine samples for it, and why this one.")
    protocol_version: int
    certified: bool = Field(description="Whether it carries a report of a passed gate.")
    statement: str = Field(description="The same in words.")
    certificate: dict[str, Any] | None = Field(description="Its core.json as the trainer wrote it.")


def _models(core: ServedCore) -> list[Model]:
    return [Model(id=name, created=core.created) for name in (core.name, ALIAS)]


def describe_core(core: ServedCore) -> CoreReply:
    """Say which core is served and what is proved of it."""
    certificate = core.certificate
    return CoreReply(
        name=core.name,
        engine=core.engine_choice,
        protocol_version=PROTOCOL_VERSION if certificate is None else certificate.protocol_version,
        certified=certificate is not None and certificate.passed is True,
        statement=core.statement,
        certificate=None if certificate is None else dict(certificate.document),
    )


@router.get("/v1/models", responses=documented())
async def list_models(resources: FromApp) -> ModelList:
    """List the served core, under its name and under the name that always means the served core."""
    return ModelList(data=_models(resources.serving.slot.current))


@router.get("/v1/models/{model}", responses=documented(404))
async def show_model(model: str, resources: FromApp) -> Model:
    """Show one of the listed models."""
    for known in _models(resources.serving.slot.current):
        if known.id == model:
            return known
    raise Refusal(404, f"there is no model {model[:100]!r} here; see /v1/models", code="model_not_found", param="model")


@router.get("/v1/core", responses=documented())
async def show_core(resources: FromApp) -> CoreReply:
    """Show the served core with its certificate, and say plainly where it has none or failed its gate."""
    return describe_core(resources.serving.slot.current)
