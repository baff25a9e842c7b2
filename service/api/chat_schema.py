"""OpenAI's chat objects, as far as a logic core can honour them, with our extensions.

A parameter that would change the answer and cannot be honoured is refused rather than ignored; one that only asks for
comfort (`user`, `store`, `metadata`) is accepted. Extensions have names of their own: `knowledge`, `limits`, `x_…`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.api.schema import FactUsed, KnowledgeChoice, LimitsChoice, Positive, QuestionText, Seed, Text


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["text"]
    text: Text


class QuestionPart(BaseModel):
    """A part of a user's message."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["text"]
    text: QuestionText


class UserMessage(BaseModel):
    """A message of the user."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["user"]
    content: QuestionText | Annotated[list[QuestionPart], Field(min_length=1)] = Field(
        description="Text, not empty; a core reads no pictures or sounds."
    )


class OtherMessage(BaseModel):
    """A message of somebody else. What an earlier answer carried beside its text may be sent back with it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "assistant"]
    content: Text | list[TextPart] = Field(description="Text.")


ChatMessage = Annotated[UserMessage | OtherMessage, Field(discriminator="role")]


def text_of(message: UserMessage | OtherMessage) -> str:
    """Give the content of a message as one text."""
    content = message.content
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


class StreamOptions(BaseModel):
    """How to stream."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = Field(default=False, description="Send the usage in a last chunk of its own.")
    include_obfuscation: bool = Field(default=False, description="Accepted; nothing is obfuscated.")


class ResponseFormat(BaseModel):
    """Only plain text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]


class ChatRequest(BaseModel):
    """OpenAI's chat completion request."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "anyOf": [
                {"properties": {"stream_options": {"type": "null"}}},
                {"properties": {"stream": {"const": True}}, "required": ["stream"]},
            ],
            "examples": [
                {
                    "model": "demo-core",
                    "messages": [{"role": "user", "content": "What is the capital of Kenya?"}],
                    "knowledge": {"modules": ["geography"]},
                }
            ],
        },
    )

    model: str | None = Field(
        default=None, description="A name that GET /v1/models lists; the served core where left out."
    )
    messages: list[ChatMessage] = Field(
        min_length=1,
        description="The conversation; at least one message is the user's. The core answers it as it stands.",
        json_schema_extra={"contains": {"properties": {"role": {"const": "user"}}, "required": ["role"]}},
    )
    knowledge: KnowledgeChoice = Field(default_factory=KnowledgeChoice, description="Our extension: which facts.")
    limits: LimitsChoice | None = Field(default=None, description="Our extension: what the answer may cost.")

    stream: bool | None = Field(default=None, description="Send the answer as server-sent events.")
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = Field(default=None, description="Most sampled tokens; the service's limit holds too.")
    max_completion_tokens: Positive | None = Field(default=None, description="The newer name of max_tokens.")
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, description="0 where left out.")] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Seed | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = Field(
        default=None, description="The answer ends before the first of these; the thought is not touched."
    )

    n: Literal[1] | None = Field(default=None, description="One answer a request.")
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = Field(
        default=None, description="Not supported: must be empty."
    )
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    modalities: list[Literal["text"]] | None = None
    reasoning_effort: str | None = Field(default=None, description="Accepted; a core has one effort.")
    verbosity: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None

    @model_validator(mode="after")
    def _is_asked(self) -> "ChatRequest":
        if not any(message.role == "user" for message in self.messages):
            raise ValueError("messages hold none of the user; ask something")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options go with stream: true only")
        return self

    @property
    def most_tokens(self) -> int | None:
        """The limit of tokens that was asked for."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """Where the answer shall end."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in stop if text)


class UrlCitation(BaseModel):
    """Where the text from `start_index` to `end_index` comes from."""

    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(BaseModel):
    """OpenAI's citation."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class AnswerMessage(BaseModel):
    """The core's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    reasoning: str
    reasoning_content: str = Field(description="The same as `reasoning`, under its other common name.")
    annotations: list[Annotation]
    x_facts: list[FactUsed]


FinishReason = Literal["stop", "length"]


class Choice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: None = None


class PromptTokens(BaseModel):
    """Part of the prompt's tokens."""

    cached_tokens: int


class ChatUsage(BaseModel):
    """OpenAI's usage, with what the memory did."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    x_injected_tokens: int
    x_lookups: int
    x_calcs: int


class ChatReply(BaseModel):
    """OpenAI's chat completion, with what it stands on: `x_facts` from the lookup log, `x_grounded`, `x_generation`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: ChatUsage
    system_fingerprint: str
    x_facts: list[FactUsed]
    x_grounded: bool | None
    x_generation: int
    x_finish: Literal["stop", "length", "lookups", "deadline", "loop", "error"]
