"""An answer for people, on a terminal: each step, each call with its reply, the facts it stands on. Pure."""

from collections.abc import Iterator

from service.trace import Answer, TraceCall, TraceStep


def show_trace(answer: Answer) -> str:
    """Show an answer with its whole trace, over several lines."""
    return "\n".join(_lines(answer))


def _lines(answer: Answer) -> Iterator[str]:
    for step in answer.steps:
        yield from _step(step)
    marks = {True: "grounded", False: "NOT GROUNDED", None: "nothing to ground"}
    yield f"  => {answer.text}" if answer.text else "  => (no answer)"
    yield ""
    for fact in answer.facts:
        source = f", {fact.source}" if fact.source else ""
        yield f"  fact {fact.fact_id[:12]}  {fact.subject} | {fact.relation} | {fact.value}  [{fact.module}{source}]"
    usage, timings = answer.usage, answer.timings
    yield (
        f"  {marks[answer.grounded]}; core {answer.core}, generation {answer.generation}; "
        f"{usage.lookups} lookups, {usage.calcs} calculations, {usage.completion_tokens} tokens; "
        f"{timings.total_s:.2f} s, of which {timings.engine_s:.2f} s in the engine"
    )
    if answer.finish.value != "stop":
        yield f"  ended by {answer.finish.value}: {answer.error or 'a limit'}"


def _step(step: TraceStep) -> Iterator[str]:
    if step.withdrawn is not None:
        yield f"  {step.index + 1}. (taken back: {step.withdrawn})"
    yield f"  {step.index + 1}. {step.text}"
    for call in step.calls:
        yield f"       {_call(call)}"
    if step.error is not None:
        yield f"       ! {step.error}"


def _call(call: TraceCall) -> str:
    found = "" if call.match in (None, "exact") else f" ({call.match}, {call.score or 0:.2f})"
    detail = f"  -- {call.detail}" if call.detail else ""
    return f"{call.kind.value} {call.body} -> {call.reply}{found}{detail}"
