"""What lies in a synthetic cohort and was not attacked does not leave: audit, origin, pack and verify refuse it."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_files import PLANTED, UNREAD, Plant, a_note, a_second_run, another_channel, signed_as_if_it_belonged
from tiny_release import Releasable, assert_refused, release_study, sign_again

from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.errors import VerificationFailed
from fedphantom.privacy.release.origin import check_origin
from fedphantom.privacy.synthetic_files import synthetic_volumes


def test_what_generate_wrote_is_one_file_for_each_channel_and_a_label_map(releasable: Releasable) -> None:
    study = release_study()
    found = synthetic_volumes(releasable.synthetic, study)
    assert len(found) == 2
    assert all(set(volumes) == {"T1w", "ce-gadolinium_T1w", "dseg"} for volumes in found.values())
    files = {path for volumes in found.values() for path in volumes.values()}
    assert files == set(releasable.synthetic.rglob("*.nii.gz"))


def test_the_cohort_of_a_release_can_be_audited_again(releasable: Releasable, volumes_release: Path) -> None:
    assert len(synthetic_volumes(volumes_release / "cohort", release_study())) == 2


@pytest.mark.parametrize(("plant", "words"), PLANTED.values(), ids=PLANTED.keys())
def test_whatever_else_lies_in_a_synthetic_cohort_is_not_packed(
    releasable: Releasable, plant: Plant, words: str
) -> None:
    """Also where an audit names the planted volume's hash among those that it saw."""
    plant(releasable.synthetic)
    releasable.write_audit()
    with pytest.raises(VerificationFailed, match=words) as refused:
        releasable.pack()
    assert refused.value.exit_code == 5
    assert not releasable.release.exists()


@pytest.mark.parametrize("plant", UNREAD)
def test_the_check_of_origin_refuses_what_it_does_not_paint_again(releasable: Releasable, plant: Plant) -> None:
    public = read_cohort(releasable.public)
    check_origin(releasable.run, releasable.synthetic, public, device="cpu")
    plant(releasable.synthetic)
    with pytest.raises(VerificationFailed):
        check_origin(releasable.run, releasable.synthetic, public, device="cpu")


@pytest.mark.parametrize("plant", [another_channel, a_second_run])
def test_a_signed_release_with_volumes_that_no_attack_read_does_not_verify(volumes_release: Path, plant: Plant) -> None:
    plant(volumes_release / "cohort")
    sign_again(volumes_release)
    assert_refused(volumes_release, "a cohort other than the signed statement says")
    signed_as_if_it_belonged(volumes_release)
    assert_refused(volumes_release, "other channels than the audit read")


def test_a_signed_release_with_a_note_does_not_verify(volumes_release: Path) -> None:
    a_note(volumes_release / "cohort")
    sign_again(volumes_release)
    assert_refused(volumes_release, "no place in such a release")


def test_an_audit_that_does_not_say_what_it_read_supports_no_release(releasable: Releasable) -> None:
    for unsaid in (
        {"channels": ["T1"]},
        {"channels": []},
        {"parameters_sha256": None},
        {"parameters_sha256": "0" * 64},
    ):
        releasable.write_audit(**unsaid)
        with pytest.raises(VerificationFailed, match="does not say that it read"):
            releasable.pack()
