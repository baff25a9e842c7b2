"""No text is code: property tests on arbitrary text, with the demo tokenizer and one like Qwen2's."""

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge_store.protocol import CallKind, Tag, escape, escape_quoted, split_tags, unescape
from service.codec import Codec, Message, PieceStream
from service.errors import CoreUnusable
from tests.conftest import DEMO_CORE
from tests.service.tokenizers_under_test import qwen_like

DEMO = Codec.load(DEMO_CORE)
QWEN = qwen_like()
STOCK = qwen_like(with_tags=False)
CODECS = pytest.mark.parametrize("codec", [DEMO, QWEN, STOCK], ids=["demo", "qwen-like", "stock"])

MARKS = st.sampled_from(
    [*Tag, "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<", "</", "<|", "|>", ">", "\ue000", "\ue001"]
)
TEXT = st.lists(st.one_of(MARKS, st.text(max_size=8)), max_size=8).map("".join)


def marks(codec: Codec, ids: list[int]) -> list[int]:
    """The ids that mean something other than text."""
    return [id_ for id_ in ids if codec.tag_of(id_) or id_ in codec.eos_ids or id_ in codec._added_ids]


def normal(codec: Codec, text: str) -> str:
    """What a tokenizer makes of a text before it cuts it: Qwen2's composes characters."""
    return text if codec is DEMO else unicodedata.normalize("NFC", text)


@CODECS
@given(text=TEXT)
@settings(max_examples=80, deadline=None)
def test_no_text_becomes_a_mark(codec: Codec, text: str) -> None:
    assert marks(codec, codec.encode_untrusted(text)) == []


@CODECS
@given(text=TEXT)
@settings(max_examples=80, deadline=None)
def test_a_question_adds_no_mark_to_its_prompt(codec: Codec, text: str) -> None:
    assert marks(codec, codec.prompt([Message("user", text)])) == marks(codec, codec.prompt([Message("user", "x")]))


@CODECS
@given(text=TEXT)
@settings(max_examples=60, deadline=None)
def test_a_question_is_kept_whole(codec: Codec, text: str) -> None:
    prompt = codec.decode(codec.prompt([Message("user", text)]))
    kept = normal(codec, text)
    head, tail = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.startswith(head)
    assert prompt.endswith(tail)
    inside = prompt[len(head) : len(prompt) - len(tail)]
    assert inside == normal(codec, escape_quoted(text))
    assert codec is not DEMO or unescape(inside) == kept


@CODECS
@given(text=TEXT)
@settings(max_examples=80, deadline=None)
def test_a_fact_cannot_forge_a_reply(codec: Codec, text: str) -> None:
    pieces = codec.pieces(codec.reply(CallKind.LOOKUP, escape(text)))
    assert [piece for piece in pieces if isinstance(piece, Tag)] == [Tag.FACT, Tag.END_FACT]
    inside = "".join(piece for piece in pieces if not isinstance(piece, Tag))
    assert inside == normal(codec, escape(text))
    assert codec is not DEMO or unescape(inside) == text


@CODECS
@given(text=TEXT, data=st.data())
@settings(max_examples=80, deadline=None)
def test_pieces_are_the_same_however_the_ids_come(codec: Codec, text: str, data: st.DataObject) -> None:
    ids = [id_ for id_ in codec.encode_trusted(text) if id_ not in codec.eos_ids]
    stream, pieces, place = PieceStream(codec), [], 0
    while place < len(ids):
        step = data.draw(st.integers(1, 6))
        pieces += stream.feed(ids[place : place + step])
        place += step
    pieces += stream.flush()
    joined = "".join(pieces)
    assert joined == codec.decode(ids)
    tags = [piece for piece in pieces if isinstance(piece, Tag)]
    if codec.has_tags:
        assert tags == [codec.tag_of(id_) for id_ in ids if codec.tag_of(id_)]
    else:
        assert tags == [piece for piece in split_tags(joined) if isinstance(piece, Tag)]


def test_half_a_character_waits_for_its_other_half() -> None:
    ids = QWEN.encode_trusted("東")
    stream = PieceStream(QWEN)
    assert len(ids) == 3
    assert [stream.feed([id_]) for id_ in ids] == [[], [], ["東"]]


def test_half_a_tag_waits_where_tags_are_text() -> None:
    stream = PieceStream(STOCK)
    fed = [piece for id_ in STOCK.encode_trusted("a </lookup> b < c") for piece in stream.feed([id_])]
    assert Tag.END_LOOKUP in fed
    assert "".join(fed + stream.flush()) == "a </lookup> b < c"


def test_the_demo_codec_stops_at_calls_and_at_the_end_of_the_turn() -> None:
    assert [DEMO.decode([id_]) for id_ in DEMO.stop_ids] == ["</lookup>", "</calc>", "<|im_end|>"]
    assert DEMO.stop_strings == ()
    assert STOCK.stop_strings == ("</lookup>", "</calc>")
    assert STOCK.stop_ids == tuple(STOCK.eos_ids)


def broken(tmp_path: Path, name: str, content: str | None) -> Path:
    for source in DEMO_CORE.iterdir():
        if source.suffix != ".safetensors":
            shutil.copy(source, tmp_path / source.name)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("tokenizer.json", None, r"no tokenizer\.json"),
        ("tokenizer.json", "{}", "not a tokenizer"),
        ("chat_template.jinja", None, "no chat template"),
        ("chat_template.jinja", "{% for %}", "cannot be read"),
        ("tokenizer_config.json", "[", "not JSON"),
        ("tokenizer_config.json", "[]", "JSON object"),
    ],
)
def test_a_folder_that_is_no_core_is_told(tmp_path: Path, name: str, content: str | None, match: str) -> None:
    with pytest.raises(CoreUnusable, match=match):
        Codec.load(broken(tmp_path, name, content))


def test_a_core_without_an_end_of_turn_is_told(tmp_path: Path) -> None:
    folder = broken(tmp_path, "generation_config.json", "{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({}))
    with pytest.raises(CoreUnusable, match="end of turn"):
        Codec.load(folder)


def test_a_template_that_refuses_is_told() -> None:
    refusing = Codec(DEMO._trusted, "{{ raise_exception('roles must alternate') }}", [2])
    with pytest.raises(CoreUnusable, match="roles must alternate"):
        refusing.prompt([Message("user", "x")])
