"""Files and folders are there as a whole, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from safetensors import SafetensorError

from sidtune.base import storage
from sidtune.base.errors import UserError
from sidtune.base.storage import new_folder, refusing_failed_writes, replacing, write_text


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    write_text(file, "old")
    file.chmod(0o640)
    with replacing(file) as aside:
        aside.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640, "as if it had been opened"
    assert [*tmp_path.iterdir()] == [file]


def test_a_new_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "opened").touch()
    write_text(tmp_path / "written", "text")
    modes = {file.stat().st_mode for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    write_text(file, "old")
    refused = pytest.raises(UserError, match=r"file\.txt could not be written: no room")
    with refused, replacing(file) as aside:
        aside.write_text("ne")
        raise OSError(errno.ENOSPC, "no room")
    assert file.read_text() == "old"
    assert [*tmp_path.iterdir()] == [file]
    with pytest.raises(UserError, match="could not be written: No such file"):
        write_text(tmp_path / "nowhere" / "file.txt", "new")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        *((OSError(number, "why"), "Free disk space") for number in (errno.ENOSPC, errno.EDQUOT)),
        (SafetensorError("I/O error"), "Free disk space"),
        *(
            (OSError(number, "why"), "can be written")
            for number in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EIO)
        ),
    ],
    ids=str,
)
def test_the_advice_is_to_free_space_only_where_there_is_none(
    tmp_path: Path, error: Exception, advice: str
) -> None:
    refused = pytest.raises(UserError, match="could not be written")
    with refused as told, refusing_failed_writes(tmp_path / "run"):
        raise error
    assert advice in str(told.value.hint)


def test_a_folder_is_there_when_it_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "some" / "folder"
    with new_folder(folder) as aside:
        (aside / "file").touch()
        assert not folder.exists()
    assert [*folder.iterdir()] == [folder / "file"]
    (tmp_path / "plain").mkdir()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode
    with new_folder(tmp_path / "plain") as aside:
        (aside / "file").touch()
    assert (tmp_path / "plain" / "file").is_file(), "an empty folder is replaced"


def test_a_folder_is_on_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, flushed = tmp_path / "folder", list[tuple[str, bool]]()
    monkeypatch.setattr(storage, "flush", lambda at: flushed.append((at.name, folder.exists())))
    with new_folder(folder) as aside:
        (aside / "inside").mkdir()
        (aside / "inside" / "file").touch()
    before = {name for name, exists in flushed if not exists}
    assert before == {"file", "inside", aside.name}
    assert flushed[-1] == (tmp_path.name, True)


def test_where_folders_cannot_be_waited_for_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode) or failing:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    failing = False
    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "file.txt", "text")
    assert (tmp_path / "file.txt").read_text() == "text"
    failing = True
    with pytest.raises(UserError, match="could not be written"):
        write_text(tmp_path / "file.txt", "more")
    assert (tmp_path / "file.txt").read_text() == "text"


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="could not be written: no room"),
        new_folder(tmp_path / "a"),
    ):
        raise OSError(28, "no room")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a"):
        raise KeyboardInterrupt
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with (
        pytest.raises(UserError, match="another program wrote to it meanwhile") as told,
        new_folder(tmp_path / "full"),
    ):
        pass
    assert "disk" not in str(told.value.hint)
    assert [*tmp_path.iterdir()] == [tmp_path / "full"]
