"""What was made once of the same things is not made again, and a file that cannot be read costs nothing but time."""

from pathlib import Path

import pytest

from trainer.baselines.kept import joint_digest, kept_or_made, said
from trainer.config import Strict


class _Part(Strict):
    figure: float = 0.0
    title: str = "a part"


def _never() -> _Part:
    raise AssertionError("this part is kept already")


def test_a_part_is_made_once_and_comes_back_as_it_was(tmp_path: Path):
    path = tmp_path / "new" / "part.json"
    made = kept_or_made(_Part, path, "these", lambda: _Part(figure=0.1))
    assert kept_or_made(_Part, path, "these", _never) == made == _Part(figure=0.1)
    assert [one.name for one in path.parent.iterdir()] == ["part.json"]


@pytest.mark.parametrize("content", ["half", '{"made_of": "these"}', '{"made_of": "these", "part": {"x": 1}}'])
def test_a_file_that_cannot_be_read_is_made_anew(tmp_path: Path, content: str):
    path = tmp_path / "part.json"
    path.write_text(content)
    assert kept_or_made(_Part, path, "these", lambda: _Part(figure=2)).figure == 2
    assert kept_or_made(_Part, path, "these", _never).figure == 2


def test_a_part_of_other_things_is_made_anew(tmp_path: Path):
    path = tmp_path / "part.json"
    kept_or_made(_Part, path, "these", _Part)
    assert kept_or_made(_Part, path, "those", lambda: _Part(figure=3)).figure == 3


def test_a_part_that_was_stopped_leaves_the_one_before(tmp_path: Path):
    path = tmp_path / "part.json"
    kept_or_made(_Part, path, "these", lambda: _Part(figure=1))

    def stopped() -> _Part:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept_or_made(_Part, path, "those", stopped)
    assert kept_or_made(_Part, path, "these", _never).figure == 1


def test_many_rows_are_one_part(tmp_path: Path):
    rows = (_Part(figure=1), _Part(figure=2))
    path = tmp_path / "rows.json"
    assert kept_or_made(tuple[_Part, ...], path, "these", lambda: rows) == rows
    assert kept_or_made(tuple[_Part, ...], path, "these", tuple[_Part, ...]) == rows


def test_an_option_at_its_default_says_nothing():
    assert said(_Part()) == said(_Part(figure=0.0)) == "{}"
    assert said(_Part(figure=1)) != said(_Part())
    assert said(_Part(figure=1), exclude={"figure"}) == "{}"


def test_the_order_of_what_a_part_is_made_of_counts():
    assert joint_digest("a", "b") != joint_digest("b", "a")
