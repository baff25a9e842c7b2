"""Who may pass: a route asks for a scope, a key opens it, and counts against the key's limits until the response ends.

Before the body is read. Where the service has no keys, everybody is `local`.
"""

from contextlib import AbstractContextManager, nullcontext

from fastapi import Request, Security
from fastapi.routing import APIRoute, APIRouter
from fastapi.security import HTTPBearer
from starlette.types import Receive, Scope, Send

from service.api.refusal import Refusal
from service.api.resource import Resources, resources_of
from service.security import Key
from service.security import Scope as KeyScope

LOCAL = "local"
_bearer = HTTPBearer(auto_error=False, description="A key made by `metabolism key create`.")


def guarded_router(scope: KeyScope, *, tags: list[str], if_guarded: bool = False) -> APIRouter:
    """Make a router whose routes ask for a key with `scope`; with `if_guarded` only where the settings say so."""

    class GuardedRoute(APIRoute):
        """A route behind a key."""

        async def handle(self, asgi: Scope, receive: Receive, send: Send) -> None:
            if self.methods and asgi["method"] not in self.methods:
                await super().handle(asgi, receive, send)
                return
            resources = resources_of(asgi)
            limit: AbstractContextManager[None] = nullcontext()
            if resources.keys is not None and (resources.settings.guard_watch or not if_guarded):
                key = asgi["state"]["key"] = _authenticate(resources, Request(asgi), scope)
                if not if_guarded:
                    limit = resources.key_limit.running(
                        key.key_id, requests_per_minute=key.requests_per_minute, concurrent=key.concurrent
                    )
            with limit:
                if self.body_field is not None:
                    _require_json(Request(asgi))
                await super().handle(asgi, receive, send)

    return APIRouter(route_class=GuardedRoute, tags=list(tags), dependencies=[Security(_bearer)])


def author_of(request: Request) -> str:
    """Name who makes this request: the key's name."""
    key: Key | None = getattr(request.state, "key", None)
    return LOCAL if key is None else key.name


def _require_json(request: Request) -> None:
    """Refuse a body of another kind. A browser's form cannot send JSON: no page reaches a local server unasked."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        shown = f"the body's Content-Type is {kind[:100]!r}" if kind else "the body has no Content-Type"
        raise Refusal(415, f"{shown}; send application/json", param="Content-Type")


def _authenticate(resources: Resources, request: Request, scope: KeyScope) -> Key:
    assert resources.keys is not None, "only where there are keys"
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    challenge = {"WWW-Authenticate": "Bearer"}
    if kind.lower() != "bearer" or not token.strip():
        message = "this needs a key: send it as «Authorization: Bearer …»; `metabolism key create` makes one"
        raise Refusal(401, message, code="missing_api_key", headers=challenge)
    key = resources.keys.find(token.strip())
    if key is None:
        raise Refusal(401, "this key is not known here, or was revoked", code="invalid_api_key", headers=challenge)
    if not key.allows(scope):
        has = ", ".join(sorted(key.scopes))
        raise Refusal(403, f"this needs the scope {scope.value}; the key {key.name!r} has {has}", code="missing_scope")
    return key
