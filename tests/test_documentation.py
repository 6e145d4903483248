"""What the documents tell people to type exists, and their examples give what they say."""

from __future__ import annotations

import doctest
import importlib
import re
import tomllib
from pathlib import Path
from typing import get_args

import click
import pytest
import typer

from fedphantom.cli import app
from fedphantom.common.labels.recipe import Edit, Plausible, Recipe, RecipeLabels

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
WITH_EXAMPLES = [
    f"{package}.{path.stem}"
    for package in PACKAGES
    for path in sorted((ROOT / Path(*package.split(".")[1:])).glob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def code_in(text: str) -> list[str]:
    """Lines of fenced blocks, continuation lines joined, and inline code spans."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^(?: {4}|\t)(.+)$", text, flags=re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [line.strip() for block in fenced for line in block.replace("\\\n", " ").splitlines()] + indented + inline


def typed_in(document: Path, program: str) -> list[list[str]]:
    lines = (
        line.strip().removeprefix("$ ").split("#")[0].split() for line in code_in(document.read_text(encoding="utf-8"))
    )
    return [words[1:] for words in lines if words[:1] == [program] and words[1:]]


def unknown_part(words: list[str]) -> str | None:
    """The first word that is neither a command nor an option of the one before; None if all exist."""
    command: click.Command = typer.main.get_command(app)
    for word in words:
        name = word.split("=")[0]
        if word.startswith("-"):
            known = {"--help", "--verbose"}.union(*(option.opts for option in command.params))
            if name not in known:
                return name
        elif isinstance(command, click.Group):
            if word not in command.commands:
                return word
            command = command.commands[word]
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_the_documents_exists(document: Path) -> None:
    assert {
        " ".join(words): unknown_part(words) for words in typed_in(document, "fedphantom") if unknown_part(words)
    } == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_in_the_documents_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {words[0] for words in typed_in(document, "make")} <= targets


def test_a_command_that_does_not_exist_would_be_found(tmp_path: Path) -> None:
    document = tmp_path / "text.md"
    document.write_text(
        "```console\n$ fedphantom study unheard-of X\n```\n\nRun `fedphantom cohort check X --unheard`.\n"
    )
    assert [unknown_part(words) for words in typed_in(document, "fedphantom")] == ["unheard-of", "--unheard"]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_are_true(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_the_architecture_names_every_room_and_no_other() -> None:
    listed = set(re.findall(r"^\| `([a-z_/]+)` \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE))
    assert {f"fedphantom.{room.replace('/', '.')}" for room in listed} == set(PACKAGES) - {"fedphantom"}


def test_the_page_on_recipes_names_every_key_and_operation_that_a_recipe_can_have() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    tables = [Recipe, RecipeLabels, Plausible, *get_args(get_args(Edit)[0])]
    keys = {key for table in tables for key in table.model_fields} - {"labels", "plausible", "edit"}
    operations = {one.model_fields["operation"].annotation.__args__[0] for one in get_args(get_args(Edit)[0])}
    assert {name for name in keys | operations if f"`{name}`" not in page} == set()
