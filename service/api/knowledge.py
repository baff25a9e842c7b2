"""``/v1/knowledge/…``: what the memory holds, and which modules of it are read."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from knowledge_store.errors import UnknownModule
from knowledge_store.exchange import record_of
from knowledge_store.generation import Generation
from knowledge_store.module import ModuleInfo
from knowledge_store.protocol import parse_query
from service.api.guard import author_of, guarded_router
from service.api.knowledge_schema import FactPage, FactReply, LookupReply, LookupRequest
from service.api.refusal import Refusal, documented
from service.api.resource import FromApp, Resources
from service.api.schema import Count, ModuleName
from service.security import Scope

reading = guarded_router(Scope.READ, tags=["knowledge"])
writing = guarded_router(Scope.WRITE, tags=["knowledge"])
_EXPORT_PAGE = 1000
_MODULE = "/v1/knowledge/modules/{module}"


class ModuleReply(BaseModel):
    """A module of the memory."""

    name: str
    facts: int
    etag: str = Field(description="Moves whenever the module's facts do; for If-Match.")
    mounted: bool = Field(description="Whether lookups read it unless they name their modules.")
    precedence: int = Field(description="Of two modules with a value, the one with the lower number wins.")
    generation: int = Field(description="The generation that changed its facts last.")

    @classmethod
    def of(cls, info: ModuleInfo) -> "ModuleReply":
        """Show a module."""
        return cls(
            name=info.name,
            facts=info.facts,
            etag=info.etag,
            mounted=info.mounted,
            precedence=info.precedence,
            generation=info.generation,
        )


class ModuleList(BaseModel):
    """All modules in order of precedence."""

    generation: int
    modules: list[ModuleReply]


@reading.get("/v1/knowledge/modules", responses=documented())
async def list_modules(resources: FromApp) -> ModuleList:
    """List the modules in order of precedence, unmounted ones included."""
    infos = resources.store.modules()
    return ModuleList(generation=resources.store.head, modules=[ModuleReply.of(info) for info in infos])


@reading.get(_MODULE, responses=documented(404))
async def show_module(module: str, response: Response, resources: FromApp) -> ModuleReply:
    """Show one module; its ETag is in the header too."""
    info = _find(resources, module)
    response.headers["ETag"] = info.etag
    return ModuleReply.of(info)


@reading.get(
    _MODULE + "/export",
    response_class=StreamingResponse,
    responses={
        **documented(404, 410),
        200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}, "description": "A fact a line"},
    },
)
async def export_module(
    module: str,
    resources: FromApp,
    generation: Annotated[int | None, Query(ge=0, le=2**53, description="As it was in this generation.")] = None,
) -> StreamingResponse:
    """Send all facts of a module as NDJSON: what `POST /update_knowledge` takes. The stream sees one generation."""
    pinned = resources.store.generation(generation, modules=[module])
    headers = {"X-Generation": str(pinned.number)}
    return StreamingResponse(_export(pinned), media_type="application/x-ndjson", headers=headers)


async def _export(pinned: Generation) -> AsyncGenerator[bytes, None]:
    with pinned as generation:
        cursor: str | None = None
        while True:
            page = await asyncio.to_thread(generation.facts, limit=_EXPORT_PAGE, cursor=cursor)
            lines = [json.dumps(record_of(fact), ensure_ascii=False) + "\n" for fact in page.facts]
            yield "".join(lines).encode()
            cursor = page.cursor
            if cursor is None:
                return


class Change(BaseModel):
    """What one generation did."""

    number: int = Field(description="The generation.")
    time: str = Field(description="When it was made (RFC 3339).")
    author: str = Field(description="Name of the key that made it.")
    module: str | None = Field(description="The module; none for what concerns all.")
    operation: str
    detail: str
    added: int
    changed: int
    deleted: int


class History(BaseModel):
    """Some generations, the newest first; `cursor` asks for older ones."""

    generations: list[Change]
    cursor: int | None


@reading.get("/v1/knowledge/generations", responses=documented())
async def list_generations(
    resources: FromApp,
    module: Annotated[ModuleName | None, Query(description="Only what concerns this module.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="So many a page.")] = 100,
    cursor: Annotated[int | None, Query(ge=0, le=2**53, description="From the page before.")] = None,
) -> History:
    """Say who changed what when, the newest first."""
    entries = resources.store.history(module=module, limit=limit, before=cursor)
    changes = [
        Change(
            number=it.generation,
            time=it.at,
            author=it.author,
            module=it.module,
            operation=it.operation,
            detail=it.detail,
            added=it.added,
            changed=it.changed,
            deleted=it.deleted,
        )
        for it in entries
    ]
    return History(generations=changes, cursor=changes[-1].number if len(changes) == limit else None)


@reading.get("/v1/knowledge/facts", responses=documented(404, 410))
async def list_facts(
    resources: FromApp,
    subject: Annotated[str | None, Query(description="Only of this subject.")] = None,
    relation: Annotated[str | None, Query(description="Only of this relation.")] = None,
    value: Annotated[str | None, Query(description="Only with this value.")] = None,
    module: Annotated[ModuleName | None, Query(description="Only of this module.")] = None,
    generation: Annotated[int | None, Query(ge=0, le=2**53, description="As they were in this generation.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="So many a page.")] = 100,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="From the page before.")] = None,
) -> FactPage:
    """List facts page by page. With `generation` from the first page on, all pages see the same."""
    modules = None if module is None else [module]
    with resources.store.generation(generation, modules=modules) as pinned:
        page = pinned.facts(subject=subject, relation=relation, value=value, limit=limit, cursor=cursor)
        facts = [FactReply.of(fact) for fact in page.facts]
        return FactPage(facts=facts, cursor=page.cursor, generation=pinned.number)


@reading.post("/v1/knowledge/lookup", responses=documented(404, 410))
async def look_up(asked: LookupRequest, resources: FromApp) -> LookupReply:
    """Ask the memory as a core does, and see what the core would read."""
    query = parse_query(asked.query)
    knowledge = asked.knowledge.value
    pinned = resources.store.generation(knowledge.generation, as_of=knowledge.as_of, modules=knowledge.modules)
    with pinned as generation:
        return LookupReply.of(generation.lookup(query), generation.number)


class ModuleChanged(BaseModel):
    """What became of a module."""

    module: str
    generation: int = Field(description="The generation that has the outcome.")


@writing.post(_MODULE + ":mount", responses=documented(404))
async def mount_module(module: str, request: Request, resources: FromApp) -> ModuleChanged:
    """Let lookups read the module, from a new generation on."""
    return await _change("mount", module, request, resources, resources.store.mount)


@writing.post(_MODULE + ":unmount", responses=documented(404))
async def unmount_module(module: str, request: Request, resources: FromApp) -> ModuleChanged:
    """Let lookups pass the module by, from a new generation on; its facts stay."""
    return await _change("unmount", module, request, resources, resources.store.unmount)


class RollbackRequest(BaseModel):
    """Where to go back to."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, json_schema_extra={"examples": [{"generation": 1}]}
    )

    generation: Count = Field(description="The generation whose facts the module shall have again.")


@writing.post(_MODULE + ":rollback", responses=documented(404, 410))
async def roll_module_back(module: str, asked: RollbackRequest, request: Request, resources: FromApp) -> ModuleChanged:
    """Give the module the facts that it had in an earlier generation, as a new generation; nothing is lost."""

    def roll_back(name: str, *, author: str) -> None:
        resources.store.rollback(name, asked.generation, author=author)

    return await _change("rollback", module, request, resources, roll_back)


_CONFIRM = {
    "name": "confirm",
    "in": "query",
    "required": True,
    "description": "The module's name once more.",
    "schema": {"type": "string"},
}


@writing.delete(_MODULE, responses=documented(404), openapi_extra={"parameters": [_CONFIRM]})
async def delete_module(
    module: str,
    request: Request,
    resources: FromApp,
    confirm: Annotated[str | None, Query(include_in_schema=False)] = None,
) -> ModuleChanged:
    """Take the module out, from a new generation on; earlier generations keep it."""
    _find(resources, module)
    if confirm != module:
        message = f"deleting a module asks for its name once more: ?confirm={module[:100]}"
        raise Refusal(400, message, code="confirmation_required", param="confirm")
    return await _change("delete", module, request, resources, resources.store.drop_module)


def _find(resources: Resources, module: str) -> ModuleInfo:
    infos = resources.store.modules()
    for info in infos:
        if info.name == module:
            return info
    names = ", ".join(info.name for info in infos) or "none"
    raise UnknownModule(f"there is no module {module[:100]!r}; there are: {names}")


async def _change(
    action: str, module: str, request: Request, resources: Resources, make: Callable[..., object]
) -> ModuleChanged:
    """Change a module on the writer's thread, with a line in the audit log whatever comes of it."""
    author, request_id = author_of(request), request.state.request_id

    def work() -> ModuleChanged:
        outcome = "refused"
        try:
            make(module, author=author)
            outcome = "done"
            return ModuleChanged(module=module, generation=resources.store.head)
        finally:
            resources.metrics.count_update(outcome)
            resources.audit.note(action, author=author, request_id=request_id, outcome=outcome, module=module)

    return await resources.writer.run(work)
