from pathlib import Path

import pytest

from trainer.errors import ArtifactError, CheckpointError
from trainer.files import claimed, room, write_whole, writing


def test_what_stood_there_stands_until_the_new_text_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_whole(tmp_path / "a" / "b" / "report.json", "first")
    write_whole(path, "second")
    assert path.read_text(encoding="utf-8") == "second"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            write_whole(path, "third")
    assert path.read_text(encoding="utf-8") == "second"
    assert list(path.parent.iterdir()) == [path], "no draft is left"


def test_what_cannot_be_written_is_said_with_the_room_and_the_way_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "folder"
    said = r"cannot write into .*folder, with \d+ MiB free.*make room and try again"
    with pytest.raises(ArtifactError, match=said), writing(below, lambda: "try again"), claimed(below):
        pytest.fail("there is no folder to work for")
    other = writing(below, lambda: "try again", CheckpointError)
    with pytest.raises(CheckpointError, match="try again"), other, claimed(below):
        pytest.fail("there is no folder to work for")


def test_a_claimed_folder_is_there_and_empty_while_the_work_goes_on_and_after_it(tmp_path: Path) -> None:
    with claimed(tmp_path / "new"):
        assert list((tmp_path / "new").iterdir()) == []
    assert list((tmp_path / "new").iterdir()) == []
    assert room(tmp_path / "not" / "yet").endswith("MiB free on its disk")


@pytest.mark.parametrize("wrong", [ValueError, KeyboardInterrupt])
def test_work_that_fails_leaves_no_empty_folder_and_all_that_holds_something(
    tmp_path: Path, wrong: type[BaseException]
) -> None:
    with pytest.raises(wrong), claimed(tmp_path / "made" / "for" / "it"):
        raise wrong
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with pytest.raises(wrong), claimed(tmp_path / "there"):
        raise wrong
    assert (tmp_path / "there").is_dir(), "it stood there before"
    new = tmp_path / "there" / "new"
    with pytest.raises(IsADirectoryError), claimed(new):
        write_whole(new / "row.json", "a finished row").parent.read_text(encoding="utf-8")
    assert [path.name for path in new.iterdir()] == ["row.json"]
