"""The hash of the installed package: it changes with whatever could change what runs, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedphantom.common.installed_code import installed_code_digest


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("__init__.py", "cli.py", "client/app.py", "common/study.py", "server/study_templates/tiny.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    return tmp_path


CHANGES: dict[str, Callable[[Path], object]] = {
    "a module": lambda root: (root / "client" / "app.py").write_text("# other\n"),
    "a new module": lambda root: (root / "privacy").mkdir() or (root / "privacy" / "new.py").write_text(""),
    "one that is gone": lambda root: (root / "cli.py").unlink(),
    "another name": lambda root: (root / "client" / "app.py").rename(root / "client" / "App.py"),
    "an extension that is found before the source": lambda root: (root / "client" / "app.so").write_bytes(b"\x7fELF"),
    "a template": lambda root: (root / "server" / "study_templates" / "tiny.toml").write_text("rounds = 2\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_could_run_otherwise_changes_it(package: Path, change: Callable[[Path], object]) -> None:
    before = installed_code_digest(package)
    change(package)
    assert installed_code_digest(package) != before


def test_what_is_never_run_does_not(package: Path) -> None:
    before = installed_code_digest(package)
    for name in ("tests/test_app.py", "docs/page.md", "client/__pycache__/app.cpython-311.pyc"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("x")
    assert installed_code_digest(package) == before
