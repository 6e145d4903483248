import errno
import os
import stat
from pathlib import Path

import pytest

from fedphantom.common.atomic import atomic_folder, write_atomic
from fedphantom.common.errors import StorageError
from fedphantom.common.storage import TEMPORARY_PREFIX, storage_errors


def strays(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]


def failing(code: int):
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code), "/data/patients/doe")

    return fail


def test_a_file_is_written_with_its_folders_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomic(path, b"first")
    write_atomic(path, b"second, longer")
    assert path.read_bytes() == b"second, longer"
    assert strays(tmp_path) == []


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, bytes(data)[:3]))
    write_atomic(tmp_path / "file", b"ten bytes!")
    assert (tmp_path / "file").read_bytes() == b"ten bytes!"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_no_stray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(code))
        with pytest.raises(StorageError) as caught:
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert strays(tmp_path) == []
    assert caught.value.exit_code == 1
    assert "doe" not in str(caught.value)


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    write_atomic(tmp_path / "key", b"secret", mode=0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_missing_file_is_not_the_disks_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), storage_errors():
        (tmp_path / "absent").read_bytes()


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "cohort"
    with atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_bytes(b"content")
        assert not target.exists()
    assert (target / "sub" / "file").read_bytes() == b"content"
    assert strays(tmp_path) == []


def test_a_folder_whose_block_fails_never_appears(tmp_path: Path) -> None:
    def half_way() -> None:
        with atomic_folder(tmp_path / "cohort") as folder:
            (folder / "file").write_bytes(b"content")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        half_way()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_inside_the_block_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no space"), atomic_folder(tmp_path / "cohort"):
        failing(errno.ENOSPC)()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken_and_a_filled_one_refused(tmp_path: Path) -> None:
    target = tmp_path / "cohort"
    target.mkdir()
    with atomic_folder(target) as folder:
        (folder / "file").write_bytes(b"mine")
    with pytest.raises(StorageError, match="there already"), atomic_folder(target):
        pass
    assert (target / "file").read_bytes() == b"mine"
