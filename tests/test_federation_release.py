"""Two hospitals and a coordinator, no folder shared: from a finished run to a release that anyone verifies, typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from audited_run import make_run
from named_generator import Naming
from officers import APPROVAL_KEYS, OFFICERS, a_key, key_files, policy_text

from fedphantom.cli import run as fedphantom
from fedphantom.common.federation import FederationTable
from fedphantom.common.journal import read_journal
from fedphantom.common.study import RolesTable

SITES = tuple(OFFICERS)
SHARE = "audit share @{} --generator @lead/run/generator.safetensors"


@pytest.fixture(scope="module")
def institutions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The coordinator's run in ``lead/run``, each hospital's folder beside it, keys, and a set of volumes."""
    root = tmp_path_factory.mktemp("institutions")
    roles = RolesTable(test=0.0, reference=0.2, control=0.2, audit=0.5)
    made = make_run(root / "made", 14, roles, federation=FederationTable(approval_keys=APPROVAL_KEYS))
    naming = Naming.of(root / "lead", made / "run")
    for site in SITES:
        shutil.move(made / "run" / "sites" / site, root / site)
    (made / "run" / "sites").rmdir()
    shutil.move(made / "run", root / "lead" / "run")
    generator = root / "lead" / "run" / "generator.safetensors"
    naming.statement(root / "lead" / "run" / "generator.dsse.json", generator)
    for name, key in {**OFFICERS, "packer": a_key(7)}.items():
        key_files(root / "keys", name, key)
    assert fedphantom(["generate", str(generator), str(root / "synthetic"), "--sample", "2", "--device", "cpu"]) == 0
    return root


def words(root: Path, line: str) -> list[str]:
    """A line as it is typed, with every path of the test's folder."""
    return [word.replace("@", f"{root}/") for word in line.split()]


def audited(root: Path, site: str, policy: str, *more: str) -> int:
    line = f"audit run @{site} --generator @lead/run/generator.safetensors --named-by @lead/run/generator.dsse.json"
    line += f" --synthetic @synthetic --policy @{policy} --steps 2 --negative-seeds 1"
    return fedphantom(words(root, " ".join([line, "--device cpu", *more])))


@pytest.mark.slow
@pytest.mark.long
def test_two_hospitals_release_their_generators_volumes_by_their_own_audits_alone(
    institutions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = institutions
    for site in SITES:
        (root / f"{site}.toml").write_text(policy_text(site, 'tier = "internal"'))
        assert audited(root, site, f"{site}.toml", f"--key @keys/{site}.pem") == 6, "so few patients: INCONCLUSIVE"
        assert json.loads((root / site / "audit" / "audit.json").read_text())["generator_named_by"]
        share = f"{SHARE.format(site)} --key @keys/{site}.pem --out @{site}.extract"
        (signature,) = (root / site / "audit").glob("*.signed.dsse.json")
        away = signature.rename(root / signature.name)
        assert fedphantom(words(root, share)) == 4, "no officer shares what none signed as it ended"
        away.rename(signature)
        assert fedphantom(words(root, share)) == 0
        told = (root / f"{site}.extract").read_text()
        assert "roc" not in told
        assert [e.event for e in read_journal(root / site / "journal.jsonl")][-1] == "audit-shared"
        assert fedphantom(words(root, share)) == 3, "it is there already"
    assert fedphantom(words(root, f"{SHARE.format('site-a')} --key @keys/packer.pem --out @x")) == 5
    forged = (root / "site-a" / "audit" / "audit.json").read_text().replace('"member": ', '"member": 9')
    (root / "forged.json").write_text(forged)
    assert (
        fedphantom(words(root, f"{SHARE.format('site-a')} --audit @forged.json --key @keys/site-a.pem --out @x")) == 5
    )
    assert not (root / "x").exists()
    combine = "audit combine @lead/run @site-a.extract @site-b.extract --policy @site-a.toml --out @audit.json"
    assert fedphantom(words(root, combine)) == 6
    assert "Combined from the signed audits of 2 sites" in capsys.readouterr().out
    assert fedphantom(words(root, "audit verify @audit.json @lead/run")) == 0
    pack = "release pack @lead/run @release --audit @audit.json --synthetic @synthetic --key @keys/packer.pem"
    pack += " --policy @site-a.toml --policy @site-b.toml"
    assert fedphantom(words(root, f"{pack} --tier controlled")) == 4, "too few patients, and it says so"
    assert fedphantom(words(root, f"{pack} --tier internal")) == 0
    keys = "--key @keys/packer.pub.pem --key @keys/site-a.pub.pem --key @keys/site-b.pub.pem"
    for site in SITES:
        approve = f"release approve @release --key @keys/{site}.pem --policy @{site}.toml --site @{site}"
        approve += " --packed-by @keys/packer.pub.pem"
        assert fedphantom(words(root, approve)) == 4, "its journal knows no such audit"
        assert fedphantom(words(root, f"{approve} --audit @audit.json")) == 0
    assert fedphantom(words(root, f"release verify @release {keys}")) == 0
    # No text of the release names a hospital.
    for path in (root / "release").rglob("*.json"):
        assert not any(site in path.read_text() for site in SITES)
