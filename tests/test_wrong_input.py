"""What a user gets wrong: every command says what was wrong and ends in the code of the contract (DESIGN §5)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_cohorts import tiny_scans, tiny_study, tiny_text, write_tiny_cohort
from tiny_release import TRUSTED

from fedphantom.cli import run
from fedphantom.common.cohort import Cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import prepare
from fedphantom.common.cohorts.roles import draw_roles
from fedphantom.common.device import choose_device
from fedphantom.common.errors import ConfigError, DataError, StorageError, about
from fedphantom.common.failure_report import report_failure
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.site_folder import SiteMaterial
from fedphantom.common.study import parse_study
from fedphantom.common.volumes.grid import Grid
from fedphantom.common.volumes.nifti import read_label_map
from fedphantom.common.volumes.nifti_writer import write_label_map
from fedphantom.privacy.audit.gathering import gather
from fedphantom.privacy.release.pack import verify_release

ROOT = Path(__file__).parent.parent


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Stderr since the last call, without frames and line breaks."""
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


# Options without effect.


@pytest.fixture
def atlas_run(tmp_path: Path) -> Path:
    """A folder with the generator of a study whose label maps come from the atlas."""
    text = tiny_text().replace('source = "folder"\nname = "balls"\nlicence = "CC0-1.0"', 'source = "atlas"')
    study = parse_study(text)
    save_weights(tmp_path / "run" / "generator.safetensors", initial_parameters(study), generator_metadata(study, 1))
    (tmp_path / "study.toml").write_text(text)
    return tmp_path / "run"


NO_EFFECT: dict[str, tuple[int, list[str]]] = {
    "labels sample": (3, ["labels", "sample", "OUT", "-n", "1", "--study", "study.toml", "--public", "open"]),
    "generate": (3, ["generate", "run/generator.safetensors", "OUT", "--sample", "1", "--public", "open"]),
    "generate from a folder": (
        3,
        ["generate", "run/generator.safetensors", "OUT", "--labels", "maps", "--public", "open"],
    ),
    "release pack": (3, ["release", "pack", "run", "OUT", "--key", "keys/key.pem", "--public", "open"]),
    "release pack of weights": (
        2,
        ["release", "pack", "run", "OUT", "--key", "keys/key.pem", "--kind", "weights", "--public", "open"],
    ),
}


@pytest.mark.parametrize("command", NO_EFFECT)
def test_public_where_it_would_have_no_effect_is_refused(
    command: str,
    atlas_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_cohort(Path("open"), 1)
    assert run(["release", "key", "keys"]) == 0
    code, line = NO_EFFECT[command]
    assert run([word.replace("OUT", "out") for word in line]) == code
    told = said(capsys)
    assert "--public" in told
    assert "no effect" in told
    assert not Path("out").exists()


def test_an_audits_public_patients_are_refused_where_no_one_needs_a_stand_in(tmp_path: Path) -> None:
    study = tiny_study(roles="test = 0\nreference = 0.5\ncontrol = 0\naudit = 0.4")
    scans = tiny_scans(6)
    coins = draw_roles(set(scans.patients), study.roles, np.random.default_rng(0))
    public = read_cohort(write_tiny_cohort(tmp_path / "open", 2, seed=9, prefix="o"))
    scans = replace(scans, headers=np.zeros((len(scans), prepare(public, study, tmp_path / "cache").headers.shape[1])))
    own = SiteMaterial(public, coins, scans)
    with pytest.raises(ConfigError, match="no effect"):
        gather([own], public, study, tmp_path / "cache")
    gather([own], None, study, tmp_path / "cache")
    without = study.roles.model_copy(update={"reference": 0.0})
    coins = draw_roles(set(scans.patients), without, np.random.default_rng(0))
    gathered = gather([SiteMaterial(public, coins, scans)], public, study, tmp_path / "cache")
    assert gathered[2] == "2 public patients stand in as reference"


# A signed release stays as it was signed.


def test_generating_from_a_release_leaves_the_release_as_it_was_signed(
    weights_release: Path, release_template: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(release_template / "public", tmp_path / "other")
    grid = None
    for number, path in enumerate(sorted(other.rglob("*_dseg.nii.gz"))):
        labels, affine = read_label_map(path)
        spacing = tuple(float(n) for n in np.linalg.norm(affine[:3, :3], axis=0))
        grid = Grid(labels.shape, (spacing[0], spacing[1], spacing[2]))
        labels = labels.astype(np.uint8)
        labels[number + 2 :] = 0  # label maps that the release does not name
        write_label_map(path, labels, grid)
    before = {path: path.read_bytes() for path in weights_release.rglob("*") if path.is_file()}
    line = ["generate", str(weights_release / "generator.safetensors"), str(tmp_path / "out"), "--sample", "1"]
    assert run([*line, "--public", str(other)]) == 0
    assert {path: path.read_bytes() for path in weights_release.rglob("*") if path.is_file()} == before
    verify_release(weights_release, TRUSTED)


def test_a_run_whose_declared_sources_are_damaged_paints_nothing(
    release_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = shutil.copytree(release_template / "run", tmp_path / "run")
    (made / "public-labels.json").write_text("{")
    line = ["generate", str(made / "generator.safetensors"), str(tmp_path / "out"), "--sample", "1"]
    assert run([*line, "--public", str(release_template / "public")]) == 3
    assert "a damaged public-labels.json in 'run'" in said(capsys)
    assert not (tmp_path / "out").exists()


# Paths of another kind, and what the system says.

MISTYPED: dict[str, tuple[list[str], str]] = {
    "a study that is a folder": (["study", "check", "folder"], "it is a folder"),
    "a study that is not there": (["study", "check", "absent"], "there is none"),
    "a study in another encoding": (["study", "check", "latin.toml"], "it is not UTF-8 text"),
    "a study without a name": (["study", "check", "empty"], "study key 'name' is missing"),
    "a cohort that is an empty folder": (["cohort", "check", "folder"], "an empty folder"),
    "label maps that are not there": (
        ["generate", "run/generator.safetensors", "out", "--labels", "absent"],
        "no folder of label maps at the path given",
    ),
    "a run that is not there": (
        ["evaluate", "--run", "absent", "--synthetic", "folder"],
        "--run: no run folder at the path given",
    ),
    "a run to pack that is not there": (
        ["release", "pack", "absent", "out", "--key", "keys/key.pem"],
        "no generator.safetensors at the path given for RUN",
    ),
    "an audit that is not there": (
        ["release", "pack", "run", "out", "--key", "keys/key.pem", "--audit", "absent"],
        "no readable audit result",
    ),
    "an audit to report that is not there": (["audit", "report", "run", "--out", "out"], "no readable audit result"),
    "a run to report on that is not there": (
        ["audit", "report", "absent", "--out", "out"],
        "no run folder at the path given",
    ),
    "a site's folder to share an audit of that is not there": (
        ["audit", "share", "absent", "--generator", "g", "--key", "keys/key.pem", "--out", "new"],
        "no valid site.toml",
    ),
    "a run whose sites' audits are combined that is not there": (
        ["audit", "combine", "absent", "empty", "--out", "new"],
        "no readable weights file",
    ),
    "an extract that is another file": (
        ["audit", "combine", "run", "empty", "--out", "new"],
        "EXTRACT: empty: a file that is no audit-extract",
    ),
    "a release that is not there": (
        ["release", "verify", "absent", "--key", "keys/key.pub.pem"],
        "no folder that can be read",
    ),
    "a coordinator's folder that is not there": (
        ["server", "invite", "absent", "site-a"],
        "DIR: no coordinator.toml at the path given",
    ),
    "a coordinator's folder that is a site's": (["server", "renew", "folder"], "DIR: no coordinator.toml"),
    "a site's folder that is not there": (["site", "renew", "absent"], "DIR: no valid site.toml"),
    "an invitation that is another file": (
        ["site", "init", "new", "--invitation", "latin.toml", "--cohort", "folder"],
        "--invitation: a file that is no invitation",
    ),
    "a name that is too long": (["study", "new", "x" * 300], "a path that is too long"),
}


@pytest.mark.parametrize("mistake", MISTYPED)
def test_a_mistyped_path_is_3_and_told_for_what_it_is(
    mistake: str,
    atlas_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("empty").write_text("")
    Path("latin.toml").write_bytes(b'name = "\xff"')
    assert run(["release", "key", "keys"]) == 0
    line, words = MISTYPED[mistake]
    assert run(line) == 3
    assert words in said(capsys)


@pytest.mark.parametrize("value", ["inf", "nan", "-1.0"])
def test_a_study_holds_no_number_that_cannot_be_meant(value: str) -> None:
    with pytest.raises(ConfigError, match=r"federation\.deadline_s"):
        parse_study(tiny_text() + f"[federation]\ndeadline_s = {value}\n")


def test_a_grid_that_no_machine_holds_is_refused_by_the_study() -> None:
    with pytest.raises(ConfigError, match="more than 134217728 voxels"):
        parse_study(tiny_text().replace("shape = [16, 16, 16]", "shape = [8000, 8000, 8000]"))


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "cuda:x", "cuda:-1", "cuda:"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{name}' is not available; expected auto, cpu"):
        choose_device(name)


def test_permission_denied_anywhere_is_told_without_the_path() -> None:
    report = report_failure(PermissionError(13, "Permission denied", "/data/sub-0042_Doe"))
    assert report.exit_code == StorageError.exit_code
    assert "may not be read or written" in report.text
    assert "Doe" not in report.text


def test_an_error_begins_with_the_option_it_is_about() -> None:
    with pytest.raises(DataError) as caught, about("--run"), about("site 'A'"):
        raise DataError("no cohort", expected="one", remedy="Check the path.")
    assert caught.value.found == "--run: site 'A': no cohort"
    assert (caught.value.expected, caught.value.remedy) == ("one", "Check the path.")


# Interrupted.

_TRAINING = """
import sys, torch
from fedphantom import cli
from fedphantom.common import study
from fedphantom.common.parallel import side_by_side

def train():
    big = torch.ones(400, 400)
    while True:
        print("training", flush=True)
        for _ in range(50):
            big = (big @ big).clamp(0, 1)

study.read_study = lambda path: list(side_by_side([train, train], 2))
sys.argv = ["fedphantom", "study", "check", "study.toml"]
cli.main()
"""


def test_ctrl_c_while_threads_train_ends_in_130_and_not_in_an_abort(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _TRAINING],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("training")
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("interrupted: ")
    assert "terminate" not in err


# Counted nouns.


def test_one_is_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cohort", "phantom", str(tmp_path / "one"), "--patients", "1", "--spacing", "12"]) == 0
    assert capsys.readouterr().out.startswith("1 procedural patient, 1 site, 12 mm")
    assert run(["cohort", "check", str(tmp_path / "one")]) == 0
    told = capsys.readouterr().out
    assert "1 patient, 1 scan;" in told
    assert "A (1 patient)" in told
    assert "Usable: 1 patient, 1 scan." in told


def test_no_sentence_counts_without_minding_the_singular() -> None:
    nouns = "patients|sites|scans|rounds|entries|label maps|files|steps|axes|members|public sources|usable replies"
    careless = re.compile(rf"\{{[^{{}}]+\}} ({nouns})\b")
    others = (
        "privacy/audit",
        "privacy/report",
        "privacy/verdict",
        "server/demo",
    )  # they name more than one, or count by themselves
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for wing in ("client", "common", "privacy", "server")
        for path in sorted((ROOT / wing).rglob("*.py"))
        if not str(path.relative_to(ROOT)).startswith(others)
        for match in careless.finditer(path.read_text(encoding="utf-8"))
    ]
    # A constant above one, a pattern, and a kind.
    assert found == [
        "privacy/attacks/blind.py: {MIN_PATIENTS} members",
        *["privacy/release/evaluation.py: {1,6} patients"] * 2,
        "privacy/release/folder.py: {self.approving_sites} sites",  # one is said otherwise, on the same line
        "privacy/release/readme.py: {kind} patients",
    ]


def test_cohort_ids_are_in_the_patients_order(tmp_path: Path) -> None:
    cohort: Cohort = read_cohort(write_tiny_cohort(tmp_path / "c", 3))
    assert cohort.patient_ids == ("p00", "p01", "p02")
