from pathlib import Path

import pytest

from trainer.errors import ArtifactError, CheckpointError
from trainer.files import claim, room, write_whole, writing


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
    with pytest.raises(ArtifactError, match=said), writing(below, lambda: "try again"):
        claim(below)
    with pytest.raises(CheckpointError, match="try again"), writing(below, lambda: "try again", CheckpointError):
        claim(below)


def test_claiming_a_folder_makes_it_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    claim(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    assert room(tmp_path / "not" / "yet").endswith("MiB free on its disk")
