"""A reservation names the code that takes and counts its steps: all of what decides them, wherever it stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import grimp
import pytest
from ledgered_site import BUDGET, RUN, ledger_in, people, steps

import fedphantom
from fedphantom.common.installed_code import installed_code_digest
from fedphantom.common.journal import read_journal

PACKAGE = Path(fedphantom.__file__).parent
DECIDING = {
    "common/promise.py": "what is noised, how many steps that takes, and what they may cost",
    "common/study.py": "what a study says where it says nothing",
    "common/cohorts/roles.py": "who trains",
    "common/cohorts/preparation.py": "what of a patient's scans is seen",
    "common/gan/label_means.py": "what means are taken of",
    "common/labels/private_name.py": "the secret that people are known again by",
    "common/journal.py": "that no line of the ledger is lost",
    "privacy/dp/accounting.py": "ε",
    "privacy/dp/step.py": "clipping and noise",
    "privacy/dp/spending.py": "what counts",
    "client/training_people.py": "whose budget it is",
    "client/private_training.py": "that steps are paid for before they are taken",
}
"""Modules without which what a noised step does or costs cannot be told, and what each decides."""


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """Every module that private training imports, and all that these import, as paths in the package."""
    graph = grimp.build_graph("fedphantom")
    modules = graph.find_upstream_modules("fedphantom.client.private_training") | {"fedphantom.client.private_training"}
    files = (module.removeprefix("fedphantom").strip(".").replace(".", "/") for module in modules)
    return {f"{file}.py" for file in files if (PACKAGE / f"{file}.py").is_file()}


def test_what_decides_is_among_what_private_training_imports(imported: set[str]) -> None:
    assert DECIDING.keys() - imported == set()


def test_a_change_of_any_module_that_private_training_imports_is_another_code(
    imported: set[str], tmp_path: Path
) -> None:
    package = tmp_path / "package"
    for file in imported:
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGE / file, package / file)
    before = installed_code_digest(package)
    for file in sorted(imported):
        whole = (package / file).read_bytes()
        (package / file).write_bytes(whole + b"#")
        assert installed_code_digest(package) != before, file
        (package / file).write_bytes(whole)
    assert installed_code_digest(package) == before


def test_a_reservation_names_the_code_that_is_installed(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    line = ledger.reserve(RUN, people("abc"), steps(5), BUDGET).line
    assert read_journal(ledger.path)[line - 1].facts["code"] == installed_code_digest()
