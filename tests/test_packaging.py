"""What is packaged is what lies in the folders, and nothing that belongs to one machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_PACKAGED = {"tests", "benchmarks", "docs", "build", "dist", "out", "demo-out"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def package_folders() -> list[Path]:
    folders = []
    for path, names, files in os.walk(ROOT):
        names[:] = [n for n in names if not n.startswith(".") and n != "__pycache__"]
        if Path(path) == ROOT:
            names[:] = [n for n in names if n not in NOT_PACKAGED]
        if "__init__.py" in files:
            folders.append(Path(path).relative_to(ROOT))
    return folders


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel built from a copy of the sources, offline."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", *NOT_PACKAGED)
    shutil.copytree(ROOT, source, ignore=ignored)
    code = "import setuptools.build_meta as backend; print(backend.build_wheel('../dist'))"
    built = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(source.parent / "dist" / built.stdout.splitlines()[-1]) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_every_folder_with_an_init_is_a_listed_package_and_no_other() -> None:
    found = {".".join(("fedphantom", *folder.parts)) for folder in package_folders()}
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_folder_with_python_of_the_package_has_an_init() -> None:
    with_python = {
        path.parent.relative_to(ROOT)
        for path in ROOT.rglob("*.py")
        if not any(part.startswith(".") or part in NOT_PACKAGED for part in path.relative_to(ROOT).parts)
    }
    assert with_python == set(package_folders())


def test_the_root_holds_no_other_python_file() -> None:
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py", "cli.py"}


def test_the_wheel_holds_every_module_and_every_data_file(wheel: set[str]) -> None:
    modules = {
        f"fedphantom/{(folder / f.name).as_posix()}"
        for folder in package_folders()
        for f in (ROOT / folder).glob("*.py")
    }
    data = [
        *(ROOT / "privacy" / "report" / "templates").glob("*.j2"),
        *(ROOT / "server" / "study_templates").glob("*.toml"),
        ROOT / "common" / "dicom" / "channels.toml",
        ROOT / "py.typed",
    ]
    assert wheel == modules | {f"fedphantom/{path.relative_to(ROOT).as_posix()}" for path in data}


def test_the_version_is_said_once() -> None:
    import fedphantom

    assert fedphantom.__version__ == PROJECT["project"]["version"]


def test_constraints_pin_exact_versions_and_name_no_host_and_no_path() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == [line for line in lines if re.fullmatch(r"[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]*", line)]


def test_constraints_pin_every_dependency_named_in_pyproject() -> None:
    named = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["dev"]]
    wanted = {re.match(r"[A-Za-z0-9-]+", requirement)[0].lower() for requirement in named}  # type: ignore[index]  # every requirement begins with a name
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert wanted <= pinned


def test_the_installed_command_and_python_m_are_the_same_program() -> None:
    command = Path(sys.executable).with_name("fedphantom")
    if not command.exists():
        pytest.skip("the package's command is not installed beside this Python")
    outputs = [
        subprocess.run([*line, "--version"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for line in ([str(command)], [sys.executable, "-m", "fedphantom"])
    ]
    assert outputs[0] == outputs[1] == f"fedphantom {PROJECT['project']['version']}\n"
