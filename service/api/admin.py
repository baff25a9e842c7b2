"""``POST /v1/admin/core``: serve another core, without a request failing."""

from pathlib import Path

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from service.api.guard import author_of, guarded_router
from service.api.model import CoreReply, describe_core
from service.api.refusal import Refusal, documented
from service.api.resource import FromApp
from service.core import ServedCore
from service.errors import CoreUnusable, EngineError, SettingsError
from service.security import Scope

router = guarded_router(Scope.ADMIN, tags=["core"])


class CoreRequest(BaseModel):
    """Which core to serve."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, json_schema_extra={"examples": [{"core": "models/another-core"}]}
    )

    core: str = Field(min_length=1, max_length=4096, description="Folder of the core, on the server.")
    engine: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="auto, vllm, embedded or a URL; as now where left out.",
    )


class SwapReply(BaseModel):
    """What became of a swap."""

    previous: str
    core: CoreReply
    drained: bool = Field(description="False where answers of the previous core were cut off after the drain time.")


@router.post("/v1/admin/core", responses=documented(404))
async def swap_core(asked: CoreRequest, request: Request, resources: FromApp) -> SwapReply:
    """Load another core beside the served one, check it, switch, and let the old one finish its answers.

    Each answer comes from one core to its end. A core without a certificate, with another protocol version, or without
    a working engine is refused with the reason, and the served one goes on.
    """
    outcome = "refused"

    folder = Path(asked.core)
    if not _is_folder(folder):
        message = f"the served core stays: there is no folder {asked.core[:200]!r} on the server"
        raise Refusal(404, message, code="unknown_core", param="core")

    async def load() -> ServedCore:
        return await resources.load_core(folder, asked.engine)

    try:
        swap = await resources.serving.slot.swap(load, drain_s=resources.settings.drain_s)
        outcome = "done"
    except (CoreUnusable, EngineError, SettingsError) as error:
        raise Refusal(400, f"the served core stays: {error}", code="core_refused", param="core") from error
    finally:
        resources.audit.note(
            "core", author=author_of(request), request_id=request.state.request_id, outcome=outcome, core=asked.core
        )
    core = resources.serving.slot.current
    resources.metrics.show_core(core.name, core.engine_choice)
    return SwapReply(previous=swap.previous, core=describe_core(core), drained=swap.drained)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file system takes
        return False
