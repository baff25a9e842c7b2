"""``POST /update_knowledge``: facts in, as JSON, NDJSON or CSV; all of them or none.

The body is spooled while it comes and read on the writer's thread, so that a change of a million facts holds up no
question. Errors name the line of the body that is wrong.
"""

import asyncio
import hashlib
import tempfile
from dataclasses import dataclass
from typing import IO, Annotated, Any, Literal

from fastapi import Header, Query, Request, Response
from pydantic import ValidationError

from knowledge_store.change import Change, CommitReport
from knowledge_store.errors import KnowledgeError
from knowledge_store.exchange import FactRecord, FileFormat, read_changes
from knowledge_store.fact import ALIAS_LIMIT, NAME_LIMIT
from service.api.guard import author_of, guarded_router
from service.api.knowledge_schema import UpdateReply, UpdateRequest, show_report
from service.api.refusal import Refusal, documented, refuse_problems
from service.api.resource import FromApp, Resources
from service.api.schema import ModuleName
from service.security import Scope

router = guarded_router(Scope.WRITE, tags=["knowledge"])
PATH = "/update_knowledge"
_SPOOLED_BYTES = 8 * 1024 * 1024
_JSON = "application/json"
_FORMATS = {
    "application/x-ndjson": FileFormat.NDJSON,
    "application/ndjson": FileFormat.NDJSON,
    "application/jsonl": FileFormat.NDJSON,
    "text/csv": FileFormat.CSV,
}

Mode = Literal["merge", "replace"]


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be written, apart from the facts."""

    module: str | None
    mode: Mode
    dry_run: bool
    if_match: str | None
    author: str
    request_id: str
    form: FileFormat | None
    """None for JSON, which names module, mode and dry run itself."""


def _fact_schema() -> dict[str, Any]:
    """Describe a fact as strictly as the store takes it: what the record's own types leave to `check_fact`."""
    schema = FactRecord.model_json_schema()
    fields = schema["properties"]
    name = {"pattern": r"^[^\x00]*[^\s\x00][^\x00]*$", "maxLength": NAME_LIMIT}
    for field in ("subject", "relation"):
        fields[field] |= name
    fields["aliases"] |= {"items": {"type": "string"} | name, "maxItems": ALIAS_LIMIT}
    fields["source"]["anyOf"][0] |= name
    for field in ("valid_from", "valid_to"):
        fields[field]["anyOf"][0]["pattern"] = r"^[0-9]{4}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12][0-9]|3[01]))?)?$"
    some_value = {"required": ["value"], "properties": {"value": {"pattern": name["pattern"]}}}
    deleted = {"required": ["op"], "properties": {"op": {"const": "delete"}}}
    schema["allOf"] = [{"anyOf": [some_value, deleted]}]
    schema["description"] = "A fact. Where both dates are given, valid_from comes before valid_to."
    return schema


_BODY = """
As JSON, as described here; or, with `?module=…` and perhaps `&mode=…&dry_run=…`, as `application/x-ndjson`

    {"subject": "Kenya", "relation": "capital", "value": "Nairobi", "aliases": ["Republic of Kenya"]}

or as `text/csv`, with the columns named in the first line and aliases joined by `|`

    subject,relation,value,source
    Kenya,capital,Nairobi,https://example.org/kenya
"""


def _body_schema() -> dict[str, Any]:
    schema = UpdateRequest.model_json_schema()
    schema.pop("$defs", None)
    schema["properties"]["facts"]["items"] = _fact_schema()
    return {"requestBody": {"required": True, "description": _BODY, "content": {_JSON: {"schema": schema}}}}


@router.post(PATH, response_model=UpdateReply, responses=documented(412), openapi_extra=_body_schema())
async def update_knowledge(
    request: Request,
    resources: FromApp,
    module: Annotated[ModuleName | None, Query(description="The module, for an NDJSON or CSV body.")] = None,
    mode: Annotated[Mode, Query(description="As in the JSON body.")] = "merge",
    dry_run: Annotated[bool, Query(description="Only say what would happen.")] = False,
    if_match: Annotated[str | None, Header(include_in_schema=False)] = None,
    idempotency_key: Annotated[str | None, Header(max_length=256, include_in_schema=False)] = None,
) -> Response:
    """Change the facts of one module: all of the body, or nothing of it. The next request sees the change.

    A new value of a functional relation takes the place of the old one; `op: delete` takes a fact out, and with an
    empty value every value of its subject and relation. A change that changes nothing makes no generation.

    The header `If-Match` with a module's ETag guards against lost updates: 412 where the module moved since. The header
    `Idempotency-Key` makes a repeated request safe: it is done once, and a repetition gets the first reply again. This
    process remembers the last 10,000 keys for a day; a restarted server, or another replica, does the request anew,
    which makes no generation where nothing would change. `If-Match` guards there too. An NDJSON or CSV body takes its
    module from `?module=`; its errors name the line.
    """
    form = _format_of(request)
    if form is not None and module is None:
        raise Refusal(400, "name the module: ?module=…", code="missing_module", param="module")
    order = _Order(module, mode, dry_run, if_match, author_of(request), request.state.request_id, form)
    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES)  # noqa: SIM115 - the writer's thread closes it
    try:
        digest = await _receive(request, spool)
    except BaseException:
        spool.close()
        raise

    def work() -> "asyncio.Future[UpdateReply]":
        return asyncio.ensure_future(resources.writer.run(lambda: _write(resources, order, spool)))

    if idempotency_key is None:
        reply, replayed = await asyncio.shield(work()), False
    else:
        fingerprint = f"{digest} {module} {mode} {dry_run} {if_match}"
        reply, replayed = await resources.replays.once(order.author, idempotency_key, fingerprint, work)
        if replayed:
            spool.close()
    headers = {"ETag": reply.etag} if reply.etag else {}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(reply.model_dump_json(), media_type=_JSON, headers=headers)


def _format_of(request: Request) -> FileFormat | None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _JSON:
        return None
    if kind not in _FORMATS:
        shown = ", ".join((_JSON, "application/x-ndjson", "text/csv"))
        raise Refusal(415, f"the body's Content-Type is {kind[:100]!r}; send one of {shown}", param="Content-Type")
    return _FORMATS[kind]


async def _receive(request: Request, spool: IO[bytes]) -> str:
    digest = hashlib.sha256()
    async for part in request.stream():
        digest.update(part)
        spool.write(part)
    spool.seek(0)
    return digest.hexdigest()


# --- On the writer's thread. ---------------------------------------------------------------------------------------


def _write(resources: Resources, order: _Order, spool: IO[bytes]) -> UpdateReply:
    outcome, module = "refused", order.module or ""
    report: CommitReport | None = None
    try:
        with spool:
            change, dry_run = _read_change(order, spool)
            module = change.module
            report = resources.store.commit(change, author=order.author, if_match=order.if_match, dry_run=dry_run)
        outcome = "dry_run" if dry_run else "done"
        return show_report(report, dry_run=dry_run)
    except KnowledgeError as error:
        outcome = type(error).__name__
        raise
    finally:
        _note(resources, order, module, outcome, report)


def _read_change(order: _Order, spool: IO[bytes]) -> tuple[Change, bool]:
    if order.form is not None:
        assert order.module is not None, "checked when the request came"
        return Change(order.module, order.mode, read_changes(spool, order.form, order.module)), order.dry_run
    try:
        asked = UpdateRequest.model_validate_json(spool.read())
    except ValidationError as error:
        raise refuse_problems(error.errors()) from error
    changes = [record.change(asked.module, line) for line, record in enumerate(asked.facts, 1)]
    return Change(asked.module, asked.mode, changes), asked.dry_run or order.dry_run


def _note(resources: Resources, order: _Order, module: str, outcome: str, report: CommitReport | None) -> None:
    counts = {} if report is None else {"added": report.added, "changed": report.changed, "deleted": report.deleted}
    resources.metrics.count_update(outcome, **(counts if outcome == "done" else {}))
    resources.audit.note(
        "update",
        author=order.author,
        request_id=order.request_id,
        outcome=outcome,
        module=module,
        generation=None if report is None else report.generation,
        **counts,
    )
