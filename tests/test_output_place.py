"""Where a command may write: a taken place is bad input, whatever the command, and is left as it was."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny_cohorts import tiny_text

from fedphantom.cli import app, run
from fedphantom.common.errors import OutputTaken
from fedphantom.common.output_place import refuse_taken
from fedphantom.common.storage import refuse_unwritable

WRITES: dict[str, list[str]] = {
    "study new": ["study", "new", "OUT"],
    "study pretrain": ["study", "pretrain", "study.toml", "OUT", "--public", "cohort"],
    "cohort phantom": ["cohort", "phantom", "OUT", "--patients", "1"],
    "cohort import-dicom": ["cohort", "import-dicom", "cohort", "OUT"],
    "labels sample": ["labels", "sample", "OUT", "-n", "1", "--study", "study.toml"],
    "labels edit": ["labels", "edit", "cohort", "OUT", "--recipe", "recipe.toml", "--study", "study.toml"],
    "labels infer": ["labels", "infer", "cohort", "OUT", "--network", "generator.safetensors"],
    "generate": ["generate", "generator.safetensors", "OUT", "--sample", "1"],
    "release key": ["release", "key", "OUT"],
    "release policy": ["release", "policy", "OUT", "--officer", "key.pub.pem", "--expires", "2030-01-01"],
    "release pack": ["release", "pack", "run", "OUT", "--key", "key.pem", "--audit", "audit.json"],
    "simulate": ["simulate", "study.toml", "--site", "A=cohort", "--site", "B=cohort", "--out", "OUT"],
    "server init": ["server", "init", "OUT", "--study", "study.toml", "--address", "localhost:443"],
    "server invite": ["server", "invite", "run", "site-a", "--out", "OUT"],
    "server export": ["server", "export", "run", "--out", "OUT"],
    "site init": ["site", "init", "OUT", "--invitation", "invitation", "--cohort", "cohort"],
    "site train": ["site", "train", "run", "study.toml", "--out", "OUT"],
    "site export": ["site", "export", "run", "--out", "OUT"],
    "demo": ["demo", "--out", "OUT"],
    "audit share": ["audit", "share", "run", "--generator", "g", "--key", "key.pem", "--out", "OUT"],
    "audit combine": ["audit", "combine", "run", "extract", "--out", "OUT"],
    "audit run": ["audit", "run", "run", "--synthetic", "cohort", "--out", "OUT"],
    "audit report": ["audit", "report", "run", "--out", "OUT"],
    "evaluate": ["evaluate", "--run", "run", "--synthetic", "cohort", "--out", "OUT"],
}


def a_filled_folder(out: Path) -> None:
    out.mkdir()
    (out / "sub-01").mkdir()
    (out / "key.pem").write_text("mine")


def a_file(out: Path) -> None:
    out.write_text("mine")


def in_a_place_with_inputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("study.toml").write_text(tiny_text())
    for name in ("cohort", "run"):
        Path(name).mkdir()


@pytest.mark.parametrize("taken", [a_filled_folder, a_file])
@pytest.mark.parametrize("command", WRITES)
def test_an_output_whose_place_is_taken_is_bad_input_and_left_alone(
    command: str,
    taken: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_a_place_with_inputs(tmp_path, monkeypatch)
    taken(Path("out"))
    before = {path: path.read_bytes() if path.is_file() else None for path in Path("out").rglob("*")}
    assert run([word.replace("OUT", "out") for word in WRITES[command]]) == 3
    told = capsys.readouterr().err
    assert "what to do: " in told
    assert "unexpected" not in told
    assert {path: path.read_bytes() if path.is_file() else None for path in Path("out").rglob("*")} == before


@pytest.mark.parametrize(
    "line",
    [
        ["labels", "edit", "run", "run/inner", "--recipe", "recipe.toml", "--study", "study.toml"],
        ["labels", "edit", "cohort", "run/inner", "--recipe", "r.toml", "--study", "study.toml", "--donors", "run"],
        ["generate", "generator.safetensors", "run/inner", "--labels", "run/../run"],
    ],
    ids=["labels edit", "labels edit, donors", "generate"],
)
def test_label_maps_are_not_written_among_those_that_are_read(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_a_place_with_inputs(tmp_path, monkeypatch)
    assert run(line) == 3
    assert "OUT: a folder inside the one that is read" in capsys.readouterr().err
    assert not any(Path("run").iterdir())


def test_every_command_that_writes_is_in_the_table() -> None:
    group = typer.main.get_command(app)
    writes = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]  # a group has them
        for sub, leaf in getattr(command, "commands", {"": command}).items():
            if any(option.name in ("out", "path") and "--study" not in option.opts for option in leaf.params):
                writes.add(f"{name} {sub}".strip())
    reads = {"cohort check", "study check", "study show", "journal show", "journal verify"}
    assert writes - reads == set(WRITES)


def test_a_file_where_a_folder_above_the_output_would_be_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    for line in (["study", "new", "file/s.toml"], ["release", "key", "file/k"]):
        assert run(line) == 3
        assert "a file where a folder is to be made" in capsys.readouterr().err


def below_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return Path("/proc/fedphantom-test")


def below_sys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return Path("/sys/fedphantom-test")


def below_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file" / "out"


def on_a_disk_mounted_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Permissions do not stop the superuser, so the system's answer is put into its mouth."""
    place = tmp_path / "archive"
    place.mkdir()

    def read_only(make: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(path: str | Path, *rest: Any, **more: Any) -> Any:
            if place in Path(path).absolute().parents:
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return make(path, *rest, **more)

        return refuse

    for making in ("mkdir", "open"):
        monkeypatch.setattr(os, making, read_only(getattr(os, making)))
    return place / "out"


UNWRITABLE = [
    (below_proc, 1, "the folder may not be written to"),
    (below_sys, 1, "the folder may not be written to"),
    (below_a_file, 3, "a file where a folder is to be made"),
    (on_a_disk_mounted_read_only, 1, "the file system is mounted read-only"),
]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc and /sys are Linux's")
@pytest.mark.parametrize("command", WRITES)
@pytest.mark.parametrize(("make", "code", "found"), UNWRITABLE, ids=lambda value: getattr(value, "__name__", ""))
def test_an_output_that_cannot_be_written_is_told_before_the_work_with_its_code(
    make: Callable[[Path, pytest.MonkeyPatch], Path],
    code: int,
    found: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_a_place_with_inputs(tmp_path, monkeypatch)
    before = sorted(tmp_path.rglob("*"))
    out = make(tmp_path, monkeypatch)
    assert run([word.replace("OUT", str(out)) for word in WRITES[command]]) == code
    told = capsys.readouterr().err
    assert found in told
    assert "what to do: " in told
    assert set(tmp_path.rglob("*")) - set(before) <= {tmp_path / "file", tmp_path / "archive"}


@pytest.mark.parametrize("place", ["/proc/x/y.png", "/sys/y.png", "file/y.png", "folder.png"])
def test_a_picture_that_cannot_be_written_is_told_before_anything_is_painted(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("folder.png").mkdir()
    assert run(["generate", "g.safetensors", "out", "--sample", "1", "--montage", place]) in (1, 3)
    assert capsys.readouterr().err.startswith("error: --montage: ")
    assert not Path("out").exists()


PICTURES = {
    "generate": ["generate", "g.safetensors", "out", "--sample", "1", "--montage", "mine.png"],
    "budget show": ["budget", "show", "site", "--plot", "mine.png"],
}


@pytest.mark.parametrize("command", PICTURES)
def test_a_picture_does_not_take_the_place_of_a_file(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.png").write_text("mine")
    assert run(PICTURES[command]) == 3
    assert f"error: {PICTURES[command][-2]}: 'mine.png' is there already" in capsys.readouterr().err
    assert Path("mine.png").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path / "a" / "b")
    refuse_unwritable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_exchanged_for_a_whole_one_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    monkeypatch.chdir(tmp_path / "here")
    for out in (Path("."), Path(""), tmp_path / "here", tmp_path / "link", Path("/proc")):
        with pytest.raises(OutputTaken, match="a link, a mounted disk, or the folder this was called in"):
            refuse_taken(out)
    refuse_taken(Path("new"))
