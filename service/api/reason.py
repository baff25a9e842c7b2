"""``POST /v1/reason``: a question in, an answer with its proof out."""

from http import HTTPStatus

from fastapi import Request, Response

from service.api.connection import while_connected
from service.api.guard import guarded_router
from service.api.refusal import Refusal, documented
from service.api.resource import FromApp
from service.api.schema import ReasonReply, ReasonRequest, limits_of
from service.codec import Message
from service.question import Question
from service.security import Scope
from service.trace import Answer, Finish

router = guarded_router(Scope.INFER, tags=["answers"])


@router.post("/v1/reason", response_model=ReasonReply, responses=documented(404, 410, 502))
async def reason(asked: ReasonRequest, request: Request, resources: FromApp) -> Response:
    """Answer a question, with every step, lookup and fact that the answer stands on.

    All lookups of one answer see one generation of the memory, which the reply names. An answer that a limit ended is
    still an answer: `finish` says which limit.
    """
    question = Question(
        messages=(Message("user", asked.question),),
        knowledge=asked.knowledge.value,
        limits=limits_of(resources.settings, asked.limits),
        request_id=request.state.request_id,
    )
    answer = require_answer(await while_connected(request, resources.serving.answer(question)))
    return Response(ReasonReply.of(answer).model_dump_json(), media_type="application/json")


def require_answer(answer: Answer) -> Answer:
    """Give `answer` back unless it failed.

    Raises:
        Refusal: 503 where the engine went away, 502 where the core wrote what no core may; both with the trace so far.
    """
    if answer.finish is not Finish.ERROR:
        return answer
    trace = ReasonReply.of(answer).model_dump(mode="json")
    message = answer.error or "the answer failed"
    if answer.unavailable:
        headers = {"Retry-After": "1"}
        raise Refusal(503, message, code="engine_unavailable", headers=headers, trace=trace)
    raise Refusal(HTTPStatus.BAD_GATEWAY, message, code="core_failed", headers={"x-should-retry": "false"}, trace=trace)
