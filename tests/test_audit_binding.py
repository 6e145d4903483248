"""An audit speaks of one generator, the very scans that trained it, and the program that audited: else it is void."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audited_run import audit, events
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.cli import run as fedphantom
from fedphantom.client.local_training import LocalTrainer
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import HASHES, prepare
from fedphantom.common.cohorts.scan_digests import digests_on_disk, patients_digests
from fedphantom.common.errors import PolicyRefused, VerificationFailed
from fedphantom.common.journal import Journal, read_journal
from fedphantom.common.keys import generate_key
from fedphantom.common.scan_record import SCANS_PREPARED, hold_scans
from fedphantom.common.site_folder import SiteFolder, site_material
from fedphantom.privacy.audit.gathering import gather
from fedphantom.privacy.audit.run import verify_audit
from fedphantom.privacy.release.run import pack_run


@pytest.fixture(scope="module")
def audited_template(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audited")
    for name in ("run", "synthetic"):
        shutil.copytree(simulated / name, root / name)
    audit(root, simulated)
    return root


@pytest.fixture
def audited(audited_template: Path, tmp_path: Path) -> Path:
    """An audited run to spoil."""
    return Path(shutil.copytree(audited_template, tmp_path / "made"))


CHANGED = "the scans of 2 patients of 10 are not those of then"


def with_own_cohort(root: Path) -> SiteFolder:
    """Site a, whose cohort is a copy that a test may spoil."""
    folder = SiteFolder.open(root / "run" / "sites" / "site-a")
    shutil.copytree(folder.cohort, root / "cohort")
    settings = folder.root / "site.toml"
    settings.write_text(settings.read_text().replace(str(folder.cohort), str(root / "cohort")))
    return SiteFolder.open(folder.root)


def exchange_two_patients_scans(cohort: Path) -> None:
    one, other = sorted(cohort.glob("sub-*"))[:2]
    for file in sorted(one.rglob("*.nii.gz")):
        there = Path(str(file).replace(one.name, other.name))
        content = file.read_bytes()
        file.write_bytes(there.read_bytes())
        there.write_bytes(content)


def test_scans_exchanged_after_training_are_neither_trained_on_nor_audited(simulated: Path, spoilt: Path) -> None:
    folder = with_own_cohort(spoilt)
    site_material(folder, folder.study())
    exchange_two_patients_scans(folder.cohort)
    for attempt in (lambda: LocalTrainer.open(folder.root), lambda: audit(spoilt, simulated)):
        with pytest.raises(PolicyRefused, match=CHANGED) as refused:
            attempt()
        assert refused.value.exit_code == 4
        assert "sub-" not in refused.value.found + refused.value.expected + refused.value.remedy
    assert events(spoilt, "site-a") == []


def test_an_audit_is_void_once_two_patients_scans_were_exchanged(
    audited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_own_cohort(audited)
    line = ["audit", "verify", str(audited / "audit"), str(audited / "run")]
    assert fedphantom(line) == 0
    exchange_two_patients_scans(folder.cohort)
    assert fedphantom(line) == 5
    assert CHANGED in " ".join(capsys.readouterr().err.split())
    generate_key(audited / "keys")
    key = audited / "keys" / "key.pem"
    with pytest.raises(VerificationFailed, match=CHANGED):
        pack_run(
            audited / "run",
            audited / "release",
            "volumes",
            "internal",
            key,
            audited / "audit",
            audited / "synthetic",
            None,
            lambda stage: lambda done, total: None,
        )
    assert not (audited / "release").exists()


def test_an_audit_is_void_once_the_program_changed(audited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify_audit(audited / "audit", audited / "run")
    monkeypatch.setattr("fedphantom.privacy.audit.binding.installed_code_digest", lambda: "f" * 64)
    with pytest.raises(VerificationFailed, match=r"by other code than is installed here \([0-9a-f]{12}, here f{12}\)"):
        verify_audit(audited / "audit", audited / "run")


def plant(prepared: Path) -> None:
    """Other voxels in a prepared folder, under hashes that fit them."""
    volumes = np.load(prepared / "volumes.npy")
    volumes[0] = volumes[1]
    np.save(prepared / "volumes.npy", volumes)
    scans = ", ".join(f'"{digest}"' for digest in digests_on_disk(prepared))
    (prepared / HASHES).write_text(f'{{"scans": [{scans}]}}')


def test_a_sites_prepared_scans_exchanged_with_their_hashes_are_found(simulated: Path, spoilt: Path) -> None:
    (prepared,) = (spoilt / "run" / "sites" / "site-a" / "cache").iterdir()
    plant(prepared)
    with pytest.raises(PolicyRefused, match="the scans of 1 patient of 10"):
        audit(spoilt, simulated)


class Stop(Exception):
    pass


def test_volumes_planted_where_an_audit_prepares_are_not_audited_in_place_of_the_released_ones(
    simulated: Path, spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort, study = read_cohort(spoilt / "synthetic"), SiteFolder.open(spoilt / "run" / "sites" / "site-a").study()
    released = np.array(prepare(cohort, study.without_remapping(), spoilt / "audit" / "cache").volumes)
    (prepared,) = (spoilt / "audit" / "cache").iterdir()
    plant(prepared)
    planted = prepare(cohort, study.without_remapping(), spoilt / "audit" / "cache").volumes
    assert not np.array_equal(planted, released)

    def attacked(**material: object) -> None:
        np.testing.assert_array_equal(material["synthetic"], released)
        raise Stop

    monkeypatch.setattr("fedphantom.privacy.audit.run_attack.AuditMaterial", attacked)
    with pytest.raises(Stop):
        audit(spoilt, simulated)


def test_control_networks_of_other_code_or_other_scans_are_not_taken_for_an_audits_own(
    simulated: Path, spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []

    def kept(folder: Path, key: str) -> None:
        keys.append(key)
        raise Stop

    def begin() -> None:
        with pytest.raises(Stop):
            audit(spoilt, simulated)

    monkeypatch.setattr("fedphantom.privacy.audit.run.KeptNetworks", kept)
    begin()
    begin()
    assert len(set(keys)) == 1
    with monkeypatch.context() as patch:
        patch.setattr("fedphantom.privacy.audit.run.installed_code_digest", lambda: "f" * 64)
        begin()

    def brighter(*arguments: Any) -> Any:
        scans, *more = gather(*arguments)
        return replace(scans, volumes=np.asarray(scans.volumes) + np.float32(1e-6)), *more

    monkeypatch.setattr("fedphantom.privacy.audit.run.gather", brighter)
    begin()
    assert len(set(keys)) == 3


def test_a_site_that_trained_on_scans_that_nobody_noted_goes_no_further(spoilt: Path, tmp_path: Path) -> None:
    folder = SiteFolder.open(spoilt / "run" / "sites" / "site-a")
    material = site_material(folder, folder.study())
    unnoted = Journal(tmp_path / "other" / "journal.jsonl")
    scans = (material.scans.patients, ["0" * 64] * len(material.scans))
    with pytest.raises(VerificationFailed, match="does not tell on which scans"):
        hold_scans(unnoted, material.coins, *scans, folder.state)
    hold_scans(unnoted, material.coins, *scans, tmp_path / "no state")
    hold_scans(unnoted, material.coins, *scans, folder.state)
    assert [entry.event for entry in read_journal(unnoted.path)] == [SCANS_PREPARED]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.text(max_size=4), st.text("0123456789abcdef", min_size=64, max_size=64)), max_size=6),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
    st.randoms(),
)
def test_what_a_journal_notes_of_scans_depends_on_key_patient_and_content_and_on_no_order(
    scans: list[tuple[str, str]], key: bytes, other: bytes, random: object
) -> None:
    def noted(of: list[tuple[str, str]], under: bytes) -> tuple[str, ...]:
        return patients_digests([patient for patient, _ in of], [digest for _, digest in of], under)

    found = noted(scans, key)
    assert len(found) == len({patient for patient, _ in scans}) == len(set(found))
    shuffled = list(scans)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis leaves it untyped
    assert noted(shuffled, key) == found
    if key != other:
        assert not set(noted(scans, other)) & set(found)
    for number, (patient, digest) in enumerate(scans):
        changed = [*scans[:number], (patient, digest[1:] + ("1" if digest[0] == "0" else "0")), *scans[number + 1 :]]
        if sorted(d for p, d in changed if p == patient) != sorted(d for p, d in scans if p == patient):
            assert sum(a != b for a, b in zip(noted(changed, key), found, strict=True)) == 1
