"""``audit report``: both pages about an audit that was run, held against the run first."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from audited_run import SIZES, audit
from report_content import words_of

from fedphantom.cli import run as fedphantom
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.site_folder import site_folders
from fedphantom.privacy.audit.run import audit_run_folder
from fedphantom.privacy.page_record import is_page_of
from fedphantom.privacy.policy import TIERS


@pytest.fixture(scope="module")
def audited(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its audit and that of one of its sites."""
    root = tmp_path_factory.mktemp("audited")
    for part in ("run", "synthetic"):
        shutil.copytree(simulated / part, root / part)
    audit(root, simulated)
    shutil.move(root / "audit", root / "run" / "audit")
    audit_run_folder(
        root / "run" / "sites" / "site-a",
        root / "synthetic",
        read_cohort(simulated / "public"),
        root / "run" / "sites" / "site-a" / "audit",
        SIZES,
        TIERS["controlled"],
        generator_file=root / "run" / "generator.safetensors",
        device="cpu",
    )
    return root


@pytest.fixture
def copied(audited: Path, tmp_path: Path) -> Path:
    for part in ("run", "synthetic"):
        shutil.copytree(audited / part, tmp_path / part)
    return tmp_path


def report(root: Path, *more: str) -> int:
    return fedphantom(["audit", "report", str(root / "run"), "--out", str(root / "pages"), "--json", *more])


def page(root: Path, rendition: str = "report") -> str:
    return (root / "pages" / f"{rendition}.html").read_text()


def names_of(root: Path) -> set[str]:
    """Every patient and site of the run."""
    patients = {one.patient_id for site in site_folders(root / "run") for one in read_cohort(site.cohort).patients}
    return patients | {"site-a", "site-b"}


def test_a_run_gets_both_pages_and_the_shareable_one_names_nobody(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(copied) == 0
    paths = json.loads(capsys.readouterr().out)
    assert {Path(path).name for path in paths.values()} == {"report.html", "report-shareable.html"}
    assert (copied / "pages" / "report.html").stat().st_mode & 0o077 == 0
    internal, shareable = words_of(page(copied)), words_of(page(copied, "report-shareable"))
    result = (copied / "run" / "audit" / "audit.json").read_bytes()
    for digest in (hashlib.sha256(result).hexdigest(), json.loads(result)["synthetic_sha256"]):
        assert digest in internal[internal.index("Decision and signature The tool") :]
        assert digest in shareable[shareable.index("Decision and signature The tool") :]
    for told in (internal, shareable):
        assert "INCONCLUSIVE" in told
        assert "no evaluation was given to this page" in told
        assert "about the audit alone" in told
    assert "2 sites (site-a, site-b), 1 round." in internal
    assert "the scan most like it" in internal
    assert "2 sites, 1 round. Every site took part in every round." in shareable
    assert not [name for name in names_of(copied) if name in page(copied, "report-shareable")]
    digest = hashlib.sha256((copied / "run" / "audit" / "audit.json").read_bytes()).hexdigest()
    for rendition in ("report", "report-shareable"):
        for site in site_folders(copied / "run"):
            made = page(copied, rendition).encode()
            assert is_page_of(made, {digest}, site.journal), "so that no other page is signed in its place"
            assert not is_page_of(made + b" ", {digest}, site.journal)
            assert not is_page_of(made, {"0" * 64}, site.journal)


def test_a_site_that_received_the_generator_gets_its_own(copied: Path) -> None:
    site, generator = copied / "run" / "sites" / "site-a", copied / "run" / "generator.safetensors"
    line = ["audit", "report", str(site), "--out", str(copied / "pages"), "--synthetic", str(copied / "synthetic")]
    assert fedphantom(line) == 5, "it holds no generator of its own"
    assert fedphantom([*line, "--generator", str(generator)]) == 0
    told = words_of(page(copied))
    assert "Sites whose patients were audited 1" in told
    assert "no record of the rounds" in told
    assert "site-b" not in told


def an_evaluation(root: Path, **changes: Any) -> Path:
    figure = {"mean": 0.7, "ci": [0.6, 0.8], "n_test": 29}
    volumes = json.loads((root / "run" / "audit" / "audit.json").read_text())["synthetic_sha256"]
    table = {"arms": [{"name": name, "dice": figure, "per_label": {}} for name in ("real", "synthetic")]}
    file = root / "evaluation.json"
    file.write_text(json.dumps(table | {"synthetic_sha256": volumes} | changes))
    return file


def test_an_evaluation_is_shown_where_it_is_of_the_audited_volumes(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(copied, "--evaluation", str(an_evaluation(copied, synthetic_sha256="0" * 64))) == 5
    assert "--evaluation: an evaluation of another synthetic cohort" in capsys.readouterr().err
    assert report(copied, "--evaluation", str(an_evaluation(copied, protocol="shin"))) == 3
    assert report(copied, "--evaluation", str(copied / "absent.json")) == 3
    assert not (copied / "pages").exists()
    assert report(copied, "--evaluation", str(an_evaluation(copied))) == 0
    assert "synthetic volumes only 0.70 (0.60 to 0.80)" in words_of(page(copied))


def test_no_page_is_made_of_what_the_audit_did_not_see(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = copied / "run" / "audit" / "audit.json"
    kept = result.read_text()
    result.write_text(kept.replace("INCONCLUSIVE", "PASS"))
    assert report(copied) == 5
    result.write_text(kept + " ")
    assert report(copied) == 5
    assert "a site's journal does not know" in " ".join(capsys.readouterr().err.split())
    result.write_text(kept)
    one, two = sorted((copied / "synthetic").rglob("*_T1w.nii.gz"))[:2]
    shutil.copy(two, one)
    assert report(copied) == 5
    assert "another synthetic cohort than the audit's" in " ".join(capsys.readouterr().err.split())
    shutil.rmtree(copied / "synthetic")
    assert report(copied) == 3
    assert not (copied / "pages").exists()
