"""Released volumes are valid BIDS, with a datasheet and the recipe of every volume.

The validator is the BIDS maintainers' own (bids-validator 3, run by Deno without a network). It holds file names,
NIfTI headers, sidecars and tables against the BIDS schema. It does not look at voxels, nor into what BIDS leaves to the
author: whether LabelChain and NoiseSeed are true, ``release pack`` finds out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_release import (
    TRUSTED,
    Releasable,
    assert_refused,
    edit_json,
    files_of,
    in_predicate,
    release_study,
    sign_again,
    statement_of,
)

from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.privacy.release.origin import check_origin
from fedphantom.privacy.release.pack import verify_release

VALIDATOR = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or shutil.which(
    "bids-validator-deno"
)
needs_validator = pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not on this machine")


def found_wrong(cohort: Path) -> dict[str, set[str]]:
    """Severity to the validator's codes."""
    command = [str(VALIDATOR), "--format", "json", str(cohort)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    report = json.loads(result.stdout)
    assert report["summary"]["totalFiles"] > 0
    found: dict[str, set[str]] = {}
    for issue in report["issues"]["issues"]:
        found.setdefault(issue["severity"], set()).add(issue["code"])
    return found


@pytest.fixture(scope="module")
def of_another_channel(tmp_path_factory: pytest.TempPathFactory) -> Releasable:
    """A release with a channel that BIDS has no name for."""
    study = release_study().model_copy(update={"channels": ("T1", "MRI")})
    made = Releasable.make(tmp_path_factory.mktemp("bids") / "made", study)
    made.pack()
    return made


# Valid


@needs_validator
def test_a_release_of_volumes_is_valid_bids(volumes_release: Path) -> None:
    found = found_wrong(volumes_release / "cohort")
    assert "error" not in found
    # What it recommends beyond: prose for every file, authors, a reference image. A release has none.
    assert found["warning"] == {"SIDECAR_KEY_RECOMMENDED", "TOO_FEW_AUTHORS"}


@needs_validator
def test_a_channel_that_bids_cannot_name_is_listed_as_such(of_another_channel: Releasable) -> None:
    cohort = of_another_channel.release / "cohort"
    assert (cohort / ".bidsignore").read_text() == "*_MRI.nii.gz\n*_MRI.json\n"
    assert "error" not in found_wrong(cohort)
    (cohort / ".bidsignore").rename(of_another_channel.root / "ignored")
    assert found_wrong(cohort)["error"] == {"NOT_INCLUDED"}
    (of_another_channel.root / "ignored").rename(cohort / ".bidsignore")
    assert read_cohort(cohort).channels == ("T1", "MRI")
    assert "BIDS has no name for MRI" in (cohort / "README.md").read_text()


@needs_validator
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda root: edit_json(sidecar_of(root, "T1w"), lambda c: c.pop("SkullStripped")), "SIDECAR_KEY_REQUIRED"),
        (lambda root: (root / "cohort" / "dataset_description.json").unlink(), "MISSING_DATASET_DESCRIPTION"),
        (lambda root: shutil.copy(root / "audit.json", root / "cohort"), "NOT_INCLUDED"),
    ],
    ids=["no SkullStripped", "no description", "a file more"],
)
def test_the_validator_finds_what_is_wrong(volumes_release: Path, change: Any, code: str) -> None:
    change(volumes_release)
    assert code in found_wrong(volumes_release / "cohort")["error"]


def sidecar_of(release: Path, key: str) -> Path:
    return sorted((release / "cohort").rglob(f"*_{key}.json"))[0]


# Recipes


def test_every_volume_is_made_again_from_the_recipe_beside_it(releasable: Releasable, volumes_release: Path) -> None:
    cohort = volumes_release / "cohort"
    public = read_cohort(releasable.public)
    assert check_origin(releasable.run, cohort, public, device="cpu") == 2
    for path in cohort.rglob("*.nii.gz"):
        recipe = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert {"GeneratorSha256", "LabelChain", "NoiseSeed"} <= recipe.keys()
        assert len(recipe["LabelChain"]["source"]["sha256"]) == 64
        assert all("seed" in step for step in recipe["LabelChain"]["steps"])


def test_images_say_whether_they_are_skull_stripped_and_label_maps_do_not(volumes_release: Path) -> None:
    for path in (volumes_release / "cohort").rglob("sub-*.json"):
        told = json.loads(path.read_text()).get("SkullStripped")
        assert told is (None if path.name.endswith("_dseg.json") else False), "too small for a head is not stripped"


@pytest.mark.parametrize("key", ["T1w", "dseg"])
def test_a_sidecar_that_says_otherwise_does_not_verify(volumes_release: Path, key: str) -> None:
    path = sidecar_of(volumes_release, key)
    content = json.loads(path.read_text()) | {"SkullStripped": True}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    sign_again(volumes_release)
    assert_refused(volumes_release, "says so of labels" if key == "dseg" else "a cohort other than")


# Datasheet

HEADINGS = (
    "Motivation",
    "Composition",
    "Collection process",
    "Preprocessing, cleaning, labelling",
    "Uses",
    "Distribution",
    "Maintenance",
)
"""Of Gebru et al. 2021."""


def test_the_datasheet_has_the_published_headings_in_their_order(volumes_release: Path) -> None:
    text = (volumes_release / "cohort" / "README.md").read_text()
    assert tuple(line[3:] for line in text.splitlines() if line.startswith("## ")) == HEADINGS
    assert max(map(len, text.splitlines())) < 200


def test_the_datasheet_says_what_the_release_holds(volumes_release: Path) -> None:
    text = (volumes_release / "cohort" / "README.md").read_text()
    assert "2 scans, each with 2 images (T1w, ce-gadolinium_T1w) and a label map: 6 volumes" in text
    assert len(list(volumes_release.rglob("*.nii.gz"))) == 6
    assert "8 × 16 × 24 voxels of 1.875 × 1.2 × 0.9375 mm" in text
    assert "background (0), tissue (1)" in text
    assert "- open balls (licence: CC0-1.0)" in text
    assert "`dp: none`" in " ".join(text.split())
    assert "Audit verdict: INCONCLUSIVE" in text
    assert "Not approved for sharing outside" in text
    assert "Of 4 images, 0 were found skull-stripped" in text


def test_the_datasheet_claims_nothing_that_nobody_measured(volumes_release: Path, releasable: Releasable) -> None:
    text = (volumes_release / "cohort" / "README.md").read_text()
    assert "its use was not measured" in text
    assert "how many patients carry each structure was not counted" in " ".join(text.split())
    assert "anonym" not in text.lower()
    releasable.write_audit(verdict="PASS")
    releasable.pack(tier="controlled")
    text = " ".join((releasable.release / "cohort" / "README.md").read_text().split())
    assert "each structure is carried by 10 of the training patients or more, or by nobody" in text


def test_a_release_of_weights_has_no_datasheet(weights_release: Path) -> None:
    assert statement_of(weights_release)["predicate"]["cohort"] is None
    assert [path.name for path in files_of(weights_release) if "README" in path.name] == ["README.md"]


@pytest.mark.parametrize(
    "changes",
    [{"scans": 3}, {"channels": ["T1w"]}, {"shape": [8, 16, 25]}, {"labels": [[0, "background"], [1, "tumour"]]}],
    ids=["scans", "channels", "grid", "labels"],
)
def test_a_statement_about_another_cohort_does_not_verify(volumes_release: Path, changes: dict[str, Any]) -> None:
    facts = statement_of(volumes_release)["predicate"]["cohort"]
    sign_again(volumes_release, in_predicate(cohort=facts | changes))
    assert_refused(volumes_release)


@pytest.mark.parametrize("name", ["README.md", ".bidsignore"])
def test_a_changed_datasheet_or_list_does_not_verify_whoever_signs_it(
    of_another_channel: Releasable, tmp_path: Path, name: str
) -> None:
    release = Path(shutil.copytree(of_another_channel.release, tmp_path / "release"))
    assert verify_release(release, TRUSTED).volumes == 6
    with (release / "cohort" / name).open("a") as file:
        file.write("*\n")
    sign_again(release)
    assert_refused(release, "did not sign|datasheet that does not say|bidsignore with other entries")


def test_no_other_hidden_file_has_a_place(volumes_release: Path) -> None:
    for name in (".bidsignore", ".hidden"):
        (volumes_release / "cohort" / name).write_text("*_T1w.nii.gz\n")
        sign_again(volumes_release)
        assert_refused(volumes_release)
        (volumes_release / "cohort" / name).unlink()
