"""The README's chain of commands, typed from top to bottom in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def chain() -> list[tuple[list[str], int]]:
    """The block's commands, each with the exit code that its comment promises; 0 where it promises none."""
    section = (
        README.read_text(encoding="utf-8").partition("## The chain, command by command\n")[2].partition("\n## ")[0]
    )
    commands = []
    for line in re.findall(r"^ {4}(fedphantom .+)$", section, flags=re.MULTILINE):
        typed, _, comment = line.partition("  #")
        promised = re.search(r"exit (\d)", comment)
        commands.append((shlex.split(typed)[1:], int(promised[1]) if promised else 0))
    return commands


def test_the_chain_goes_from_patients_to_a_release_and_names_the_codes_of_its_refusals() -> None:
    codes = [(" ".join(words[:2]), code) for words, code in chain()]
    wanted = {"cohort phantom", "study new", "simulate study.toml", "audit run", "release approve", "release withdraw"}
    assert wanted <= {name for name, _ in codes}
    refused = [("audit run", 6), ("release pack", 4), ("release verify", 4), ("release verify", 5)]
    assert [pair for pair in codes if pair[1]] == refused


@pytest.mark.slow
def test_the_chain_can_be_typed_from_top_to_bottom(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    (tmp_path / "docs").symlink_to(README.parent / "docs")  # it is typed where the repository lies
    for words, promised in chain():
        command = [sys.executable, "-m", "fedphantom", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == promised, f"{shlex.join(words)}: {done.stderr[-2000:]}"
