"""Whole answers of a core: it stops at a call, the call is answered, it goes on. Greedy, many questions at once.

For measuring during training and for the evaluation; serving is the service's work. The memory is a function, so a
test or an evaluation decides what it says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from simpleeval import InvalidExpression, simple_eval
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from knowledge_store.errors import ProtocolError
from knowledge_store.protocol import (
    CALC_ERROR,
    NOT_FOUND,
    Call,
    CallKind,
    Origin,
    Parser,
    Tag,
    Turn,
    render_reply,
    split_tags,
)
from trainer.chat import ChatFrame, render_prompt
from trainer.decoding import decode

Memory = Callable[[int, str], str]
"""(number of the question, body of the lookup) -> body of the fact, escaped, or NOT FOUND."""
Continuations = dict[tuple[int, ...], list[int]]
"""What one model, decoding greedily, made of a prompt."""
_STOPS = (Tag.END_LOOKUP, Tag.END_CALC)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A question and what the core made of it. `turn` is None where what it wrote breaks the protocol."""

    question: str
    text: str
    turn: Turn | None

    @property
    def lookups(self) -> tuple[Call, ...]:
        """The lookups, in order."""
        calls = (call for step in (self.turn.steps if self.turn else ()) for call in step.calls)
        return tuple(call for call in calls if call.kind is CallKind.LOOKUP)

    @property
    def answer(self) -> str | None:
        """The answer, where it came to one."""
        return self.turn.answer if self.turn else None

    @property
    def steps(self) -> int:
        """How many steps it thought."""
        return len(self.turn.steps) if self.turn else 0


@dataclass(slots=True)
class _Growing:
    ids: list[int]
    prompt: int
    calls: int = 0
    done: bool = False


def silent_memory(number: int, body: str) -> str:
    """A memory that knows nothing."""
    del number, body
    return NOT_FOUND


def calculate(body: str) -> str:
    """What the ALU answers."""
    try:
        result = simple_eval(body)
    except (InvalidExpression, ArithmeticError, SyntaxError, TypeError, ValueError):
        return CALC_ERROR
    if isinstance(result, bool):
        return "true" if result else "false"
    if not isinstance(result, int | float):
        return CALC_ERROR
    return str(int(result)) if float(result).is_integer() else str(round(result, 6))


def answer_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    frame: ChatFrame,
    questions: Sequence[str],
    memory: Memory,
    *,
    tools: bool = False,
    opening: str = "",
    most_calls: int = 6,
    most_tokens: int = 96,
    batch: int = 128,
    known: Continuations | None = None,
) -> list[Rollout]:
    """Answer questions; `opening` is what the turn is made to begin with.

    Who asks one model the same questions with several memories passes one `known`, in which what was written up to a
    call is kept and not written again.
    """
    known = {} if known is None else known
    growing = [_begin(question, tokenizer, frame, opening, tools=tools) for question in questions]
    stops = {token_id(tokenizer, tag) for tag in (tokenizer.eos_token, *_STOPS)}
    pad_id = token_id(tokenizer, tokenizer.pad_token)
    writers: list[int] = []  # whose prompts are decoded now

    def grow(number: int, written: list[int]) -> list[int]:
        return _grow(growing[number], written, tokenizer, partial(memory, number), most_calls)

    def resume(place: int, written: list[int]) -> list[int]:
        known[tuple(growing[writers[place]].ids)] = written
        return grow(writers[place], written)

    while True:
        waiting: dict[tuple[int, ...], int] = {}  # one writes for all who stand where it stands
        for number, one in enumerate(growing):
            while not one.done and tuple(one.ids) in known:
                grow(number, known[tuple(one.ids)])
            if not one.done:
                waiting.setdefault(tuple(one.ids), number)
        if not waiting:
            break
        writers[:] = waiting.values()
        decode(model, list(waiting), stops=stops, pad_id=pad_id, most_tokens=most_tokens, batch=batch, resume=resume)
    return [_finish(question, one, tokenizer, frame) for question, one in zip(questions, growing, strict=True)]


def _begin(
    question: str, tokenizer: PreTrainedTokenizerFast, frame: ChatFrame, opening: str, *, tools: bool
) -> _Growing:
    parts = [segment.text for segment in render_prompt(question, frame, tools=tools)]
    ids = [token for part in parts for token in tokenizer(part, add_special_tokens=False)["input_ids"]]
    prompt = len(ids)
    return _Growing(ids + tokenizer(opening, add_special_tokens=False)["input_ids"] if opening else ids, prompt)


def token_id(tokenizer: PreTrainedTokenizerFast, token: str | None) -> int:
    """The id of a token that is one."""
    found = tokenizer.convert_tokens_to_ids(str(token))
    assert isinstance(found, int), "one token has one id"
    return found


def text_of(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    """Ids as text, marks included."""
    return str(tokenizer.decode(ids, skip_special_tokens=False))


def _grow(
    one: _Growing, new: list[int], tokenizer: PreTrainedTokenizerFast, memory: Callable[[str], str], most_calls: int
) -> list[int]:
    """Take in what was written; the reply to its call, where it is one that is answered."""
    one.ids += new
    last = tokenizer.convert_ids_to_tokens(new[-1]) if new else ""
    if last not in _STOPS or one.calls == most_calls:
        one.done = True
        return []
    kind = CallKind.LOOKUP if last == Tag.END_LOOKUP else CallKind.CALC
    text = text_of(tokenizer, one.ids[one.prompt :])
    body = text.rpartition(kind.tags[0])[2].removesuffix(kind.tags[1]).strip()
    reply = memory(body) if kind is CallKind.LOOKUP else calculate(body)
    given: list[int] = tokenizer(render_reply(Call(kind, body, reply)), add_special_tokens=False)["input_ids"]
    one.ids += given
    one.calls += 1
    return given


def _finish(question: str, one: _Growing, tokenizer: PreTrainedTokenizerFast, frame: ChatFrame) -> Rollout:
    text = text_of(tokenizer, one.ids[one.prompt :]).removesuffix(frame.end.strip())
    parser = Parser()
    try:
        for piece in split_tags(text):
            # Only injected text holds reply tags, so a piece tells its origin but for a core that wrote one itself,
            # which the parser would refuse at a place where no call waits.
            parser.feed([piece], Origin.INJECTED if parser.pending is not None else Origin.SAMPLED)
        turn: Turn | None = parser.finish()
    except ProtocolError:
        turn = None
    return Rollout(question, text, turn)
