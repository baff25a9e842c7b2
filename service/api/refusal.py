"""Every error a client can get, in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``.

The one table from what the service and the store raise to an HTTP status. Clients of OpenAI's kind repeat 408, 409, 429
and 5xx by themselves: so what will fail again gets none of these, or says ``x-should-retry: false``.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route

from knowledge_store import errors as knowledge
from knowledge_store.errors import KnowledgeError
from service import errors as service
from service.errors import ServiceError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "service_unavailable_error",
}
_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_value",
}
_RETRY_AFTER_S = "1"


class ErrorBody(BaseModel):
    """What went wrong, for people and for programs."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field(description="What went wrong and what to do, in words.")
    type: str = Field(description="The family: invalid_request_error, authentication_error, rate_limit_error, ….")
    param: str | None = Field(description="The part of the request that is wrong, where one is.")
    code: str | None = Field(description="The precise reason, one word that does not change.")


class ErrorReply(BaseModel):
    """The shape of every error, whatever the route and the status."""

    error: ErrorBody
    trace: dict[str, Any] | None = Field(default=None, description="How far an answer came before it failed.")


class Refusal(HTTPException):
    """An error that knows its status. Starlette's class, so that no layer takes it for an accident."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        trace: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, message, headers=headers)
        self.code = code or _CODES.get(status)
        self.param = param
        self.trace = trace

    @property
    def body(self) -> dict[str, Any]:
        """The error as it is sent."""
        kind = _TYPES.get(self.status_code, "invalid_request_error")
        error = {"message": self.detail, "type": kind, "param": self.param, "code": self.code}
        return {"error": error} if self.trace is None else {"error": error, "trace": self.trace}

    def response(self) -> JSONResponse:
        """The answer to send."""
        return JSONResponse(self.body, self.status_code, headers=dict(self.headers or {}))


_STATUS: Sequence[tuple[type[Exception], int, str]] = (
    (knowledge.ProtocolError, 400, "invalid_query"),
    (knowledge.InvalidFact, 400, "invalid_fact"),
    (knowledge.InvalidChange, 400, "invalid_fact"),
    (knowledge.Contradiction, 422, "contradiction"),
    (knowledge.PreconditionFailed, 412, "etag_mismatch"),
    (knowledge.ModuleNotMounted, 404, "module_not_mounted"),
    (knowledge.UnknownModule, 404, "unknown_module"),
    (knowledge.GenerationGone, 410, "generation_gone"),
    (knowledge.UnknownGeneration, 404, "unknown_generation"),
    (knowledge.StoreUnavailable, 503, "store_unavailable"),
    (knowledge.ChangeRefused, 503, "change_lost"),
    (knowledge.KnowledgeError, 400, "invalid_request"),
    (service.QuestionRefused, 400, "invalid_question"),
    (service.CoreUnusable, 400, "core_unusable"),
    (service.EngineRefused, 400, "context_length_exceeded"),
    (service.EngineUnavailable, 503, "engine_unavailable"),
    (service.RateExceeded, 429, "rate_limit_exceeded"),
    (service.Busy, 503, "overloaded"),
    (service.KeysUnusable, 503, "keys_unavailable"),
    (service.ServiceError, 500, "internal_error"),
)
_PARAMS = {
    "unknown_module": "module",
    "module_not_mounted": "module",
    "unknown_generation": "generation",
    "generation_gone": "generation",
    "invalid_query": "query",
}


def refuse(error: KnowledgeError | ServiceError) -> Refusal:
    """Translate an error of the store or the service."""
    status, code = next((status, code) for kind, status, code in _STATUS if isinstance(error, kind))
    param = getattr(error, "param", None) or _PARAMS.get(code)
    headers: dict[str, str] = {}
    if isinstance(error, service.Busy):
        headers["Retry-After"] = f"{error.retry_after_s:.0f}"
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = _RETRY_AFTER_S
    if isinstance(error, knowledge.InvalidChange) and error.problems:
        param = f"line {error.problems[0].line}"
    return Refusal(status, str(error), code=code, param=param, headers=headers)


def refuse_validation(error: RequestValidationError) -> Refusal:
    """Translate what FastAPI found wrong with a request."""
    return refuse_problems(error.errors())


def refuse_problems(problems: Sequence[Mapping[str, Any]]) -> Refusal:
    """Translate what pydantic found: 400 for what is malformed or unknown, 422 for a value of the wrong kind."""
    first = problems[0]
    kinds = {problem["type"] for problem in problems}
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    param = ".".join(where) or None
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "it cannot be read")
        return Refusal(400, f"the body is not JSON: {reason}", code="malformed_json")
    shown = "; ".join(_explain(problem) for problem in problems[:5])
    if "extra_forbidden" in kinds:
        unknown = next(problem for problem in problems if problem["type"] == "extra_forbidden")
        param = ".".join(str(part) for part in unknown["loc"] if part not in ("body", "query"))
        return Refusal(400, shown, code="unknown_parameter", param=param)
    status = 400 if "value_error" in kinds else 422
    return Refusal(status, shown, code="invalid_value" if status == 400 else None, param=param)


def _explain(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query", "path", "header"))
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        text = "there is no such parameter; take it out, or mend its name"
    if problem["type"] == "missing":
        text = "is required"
    return f"{where or 'the body'}: {text}"


def _refuse_http(error: HTTPException, request: Request) -> Refusal:
    if isinstance(error, Refusal):
        return error
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _methods_of(request)
    messages = {
        404: f"there is no route {request.url.path}; see /docs",
        405: f"{request.method} is not possible on {request.url.path}; possible are: {headers.get('Allow')}",
    }
    message = messages.get(error.status_code, str(error.detail))
    if error.status_code == HTTPStatus.BAD_REQUEST and "parsing the body" in message:
        message = "the body cannot be read; send JSON in UTF-8"
    return Refusal(error.status_code, message, headers=headers)


def _methods_of(request: Request) -> str:
    """Name every method of a path; its routes each know their own only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.path_regex.match(request.scope["path"])]
    best = max(matching, key=lambda route: len(route.path)).path  # «…/{module}:mount» is a «…/{module}» too
    return ", ".join(sorted({method for route in matching if route.path == best for method in route.methods or ()}))


def install(app: FastAPI) -> None:
    """Let every route of `app` answer errors in the one shape."""

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        return _refuse_http(error, request).response()

    @app.exception_handler(RequestValidationError)
    async def on_validation(_: Request, error: RequestValidationError) -> JSONResponse:
        return refuse_validation(error).response()

    @app.exception_handler(KnowledgeError)
    @app.exception_handler(ServiceError)
    async def on_ours(_: Request, error: KnowledgeError | ServiceError) -> JSONResponse:
        return refuse(error).response()


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Name the errors of a route for the OpenAPI document."""
    always = (400, 401, 403, 413, 415, 422, 429, 503)
    return {status: {"model": ErrorReply, "description": HTTPStatus(status).phrase} for status in (*always, *statuses)}
