"""Between text and token ids: the core's tokenizer and its chat template.

Text comes in two kinds. Trusted text (the template, our tags) may become special tokens and tags; untrusted text
(questions, facts, results) is encoded by a twin of the tokenizer that has no added tokens, so nothing that anybody
writes can become one. Ids that the core sampled are only ever decoded for reading: a turn grows by appending ids.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.sandbox
from tokenizers import Tokenizer

from knowledge_store.protocol import CallKind, Piece, Tag, escape_quoted, split_tags
from service.errors import CoreUnusable

_MARK = "\ue000{}\ue001"
_REPLACEMENT = "\ufffd"
_BEGUN_TAG = re.compile(r"<[/a-z]{0,8}\Z")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. Its content stands as its author wrote it, and is untrusted unless it is ours."""

    role: str
    content: str
    trusted: bool = False


class Codec:
    """Encodes prompts and replies, decodes what was sampled."""

    def __init__(self, tokenizer: Tokenizer, template: str, eos_ids: Sequence[int]) -> None:
        self._trusted = tokenizer
        self._untrusted = _without_added_tokens(tokenizer)
        self._added_ids = frozenset(tokenizer.get_added_tokens_decoder())
        self._template = _compile(template)
        self.eos_ids = frozenset(eos_ids)
        found = {tag: tokenizer.token_to_id(tag) for tag in Tag}
        self.tag_ids: Mapping[Tag, int] = {tag: id_ for tag, id_ in found.items() if id_ in self._added_ids}
        self._tags = {id_: tag for tag, id_ in self.tag_ids.items()}

    @classmethod
    def load(cls, folder: Path) -> "Codec":
        """Read the tokenizer and the chat template in a core's folder.

        Raises:
            CoreUnusable: one of them is missing or cannot be read, or the core names no end of turn.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise CoreUnusable(f"{folder} has no tokenizer.json; name a core's folder with --core")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise CoreUnusable(f"{path} is not a tokenizer: {error}") from error
        settings = _read_json(folder / "tokenizer_config.json")
        template_path = folder / "chat_template.jinja"
        template = template_path.read_text("utf-8") if template_path.is_file() else settings.get("chat_template")
        if not isinstance(template, str):
            raise CoreUnusable(f"{folder} has no chat template; it needs a chat_template.jinja")
        return cls(tokenizer, template, _read_eos_ids(folder, tokenizer, settings))

    @property
    def has_tags(self) -> bool:
        """Whether each tag is one token, so that calls are found by id and not by text."""
        return len(self.tag_ids) == len(Tag)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Where sampling pauses or ends: the ends of calls, and the end of the turn."""
        calls = (self.tag_ids[tag] for tag in (Tag.END_LOOKUP, Tag.END_CALC) if tag in self.tag_ids)
        return (*calls, *sorted(self.eos_ids))

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The same for a core whose tags are plain text."""
        return () if self.has_tags else (Tag.END_LOOKUP.value, Tag.END_CALC.value)

    def encode_untrusted(self, text: str) -> list[int]:
        """Encode anybody's text. No id of it is a tag or a special token."""
        ids: list[int] = self._untrusted.encode(text, add_special_tokens=False).ids
        assert self._added_ids.isdisjoint(ids), "untrusted text became an added token"
        return ids

    def encode_trusted(self, text: str) -> list[int]:
        """Encode our own text, in which tags and special tokens are meant."""
        ids: list[int] = self._trusted.encode(text, add_special_tokens=False).ids
        return ids

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Encode a conversation up to where the core takes its turn.

        Tags in a message's content are escaped as the protocol says, so that the core's answer can be unescaped.

        Raises:
            CoreUnusable: the template refuses such a conversation.
        """
        marked = [{"role": message.role, "content": _MARK.format(place)} for place, message in enumerate(messages)]
        try:
            text = self._template.render(messages=marked, add_generation_prompt=True, tools=None)
        except jinja2.TemplateError as error:
            raise CoreUnusable(f"the core's chat template refuses this conversation: {error}") from error
        head, *rest = text.split("\ue000")
        ids = self.encode_trusted(head)
        for part in rest:
            place, ours = part.split("\ue001", 1)
            ids += self._encode_content(messages[int(place)]) + self.encode_trusted(ours)
        return ids

    def _encode_content(self, message: Message) -> list[int]:
        if message.trusted:
            return self.encode_trusted(message.content)
        return self.encode_untrusted(escape_quoted(message.content))

    def reply(self, kind: CallKind, body: str) -> list[int]:
        """Encode what the memory or the ALU injects after a call: our tags around untrusted, escaped text."""
        opening, closing = kind.reply_tags
        return self.tag(opening) + self.encode_untrusted(body) + self.tag(closing)

    def open_call(self, query: str) -> list[int]:
        """Encode a lookup that a detector makes in the core's stead. `query` is escaped as the protocol says."""
        return self.tag(Tag.LOOKUP) + self.encode_untrusted(query) + self.tag(Tag.END_LOOKUP)

    def tag(self, tag: Tag) -> list[int]:
        """Encode one tag."""
        return [self.tag_ids[tag]] if tag in self.tag_ids else self.encode_trusted(tag)

    def tag_of(self, id_: int) -> Tag | None:
        """The tag that `id_` is, if any."""
        return self._tags.get(id_)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, tags and special tokens included."""
        text: str = self._trusted.decode(list(ids), skip_special_tokens=False)
        return text

    def pieces(self, ids: Sequence[int]) -> list[Piece]:
        """Cut `ids` at their tags, without the end of the turn."""
        stream = PieceStream(self)
        return stream.feed(ids) + stream.flush()


class PieceStream:
    """Cuts ids at their tags as they come, never giving half a character or half a tag."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._ids: list[int] = []
        self._given = 0
        self._held = ""

    def feed(self, ids: Sequence[int]) -> list[Piece]:
        """Take the next ids; return the pieces that became certain."""
        pieces: list[Piece] = []
        for id_ in ids:
            tag = self._codec.tag_of(id_)
            if tag is None and id_ not in self._codec.eos_ids:
                self._ids.append(id_)
                continue
            pieces += self.flush()
            pieces += [] if tag is None else [tag]
        text = self._codec.decode(self._ids) if self._ids else ""
        if text.endswith(_REPLACEMENT):
            return pieces
        return pieces + self._give(text, hold=not self._codec.has_tags)

    def flush(self) -> list[Piece]:
        """Return what was held back: no more ids follow that could complete it."""
        return self._give(self._codec.decode(self._ids) if self._ids else "", hold=False, start_anew=True)

    def _give(self, text: str, *, hold: bool, start_anew: bool = False) -> list[Piece]:
        new = self._held + text[self._given :]
        self._given, self._held = len(text), ""
        if start_anew or new.endswith("\n"):
            self._ids, self._given = [], 0
        if hold and (begun := _BEGUN_TAG.search(new)):
            new, self._held = new[: begun.start()], new[begun.start() :]
        if self._codec.has_tags:
            return [new] if new else []
        return split_tags(new)


def _without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    layout = json.loads(tokenizer.to_str())
    layout["added_tokens"] = []
    layout["post_processor"] = None
    return Tokenizer.from_str(json.dumps(layout))


def _compile(template: str) -> jinja2.Template:
    """Compile a chat template as transformers does: sandboxed, blocks trimmed, its three helpers present."""

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise CoreUnusable(f"the core's chat template cannot be read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CoreUnusable(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CoreUnusable(f"{path} does not hold a JSON object")
    return content


def _read_eos_ids(folder: Path, tokenizer: Tokenizer, settings: Mapping[str, Any]) -> list[int]:
    named = _read_json(folder / "generation_config.json").get("eos_token_id")
    ids = set(named if isinstance(named, list) else [named])
    token = settings.get("eos_token")
    ids.add(tokenizer.token_to_id(token["content"] if isinstance(token, dict) else token) if token else None)
    ids.discard(None)
    if not ids:
        raise CoreUnusable(f"{folder} names no end of turn; set eos_token in tokenizer_config.json")
    return sorted(ids)
