"""Means of structures: what they are, what one patient can change of them, and that a generator comes to match them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_cohorts import tiny_scans, tiny_study
from torch import Tensor

from fedphantom.common.device import choose_device
from fedphantom.common.gan.label_means import PublicMeans, TargetMeans, label_means, means_loss, public_means
from fedphantom.common.gan.networks import one_hot
from fedphantom.privacy.dp.longest_means import longest_means
from fedphantom.privacy.dp.means import noised_means, noised_vector
from fedphantom.privacy.dp.noised import numbers_noised
from fedphantom.privacy.dp.patients import PrivatePatients
from fedphantom.privacy.dp.provenance import marked
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.step import NoisedSum

CPU = choose_device("cpu")
STUDY = tiny_study()
SCANS = tiny_scans(6)
PUBLIC = public_means(tiny_scans(5, seed=9), STUDY, CPU)


def tensors(rows: slice) -> tuple[Tensor, Tensor]:
    return one_hot(torch.from_numpy(np.array(SCANS.classes[rows])), 3), torch.from_numpy(np.array(SCANS.volumes[rows]))


def target(patients: int, how: NoisedSum) -> TargetMeans:
    private = PrivatePatients(SCANS.only(range(patients)), STUDY, CPU)
    return noised_means(private, PUBLIC, 1.0, how, SecretRandom(CPU.torch))


def test_they_are_means_and_mean_squares_over_each_labels_voxels() -> None:
    given, volumes = tensors(slice(0, 2))
    means, presence = label_means(given, volumes)
    assert means.shape == (2, 2, 4)
    assert presence.tolist() == [[1, 1], [1, 1]]
    for scan in range(2):
        for label in (1, 2):
            inside = np.asarray(SCANS.volumes[scan])[:, np.asarray(SCANS.classes[scan]) == label]
            expected = [*inside.mean(axis=1), *np.square(inside).mean(axis=1)]
            assert means[scan, label - 1].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_label_that_a_scan_lacks_counts_as_absent() -> None:
    given, volumes = tensors(slice(0, 1))
    given[:, 1] += given[:, 2]
    given[:, 2] = 0
    means, presence = label_means(given, volumes)
    assert presence.tolist() == [[1, 0]]
    assert not means[0, 1].any()
    assert not PUBLIC.shift(means, presence)[0, 1].any()


def test_public_scans_lie_around_their_own_centre() -> None:
    scans = tiny_scans(5, seed=9)
    found = public_means(scans, STUDY, CPU)
    given = one_hot(torch.from_numpy(np.array(scans.classes)), 3)
    shift = found.shift(*label_means(given, torch.from_numpy(np.array(scans.volumes))))
    assert torch.allclose(shift.mean(dim=0), torch.zeros(2, 4), atol=1e-4)
    assert shift.std(dim=0, correction=0).max() <= 1 + 1e-4


def test_without_noise_or_clipping_the_target_is_the_patients_mean_shift() -> None:
    expected = PUBLIC.shift(*label_means(*tensors(slice(0, 6)))).clamp(-3, 3).mean(dim=0)
    found = target(6, NoisedSum(clip_norm=1e6, noise_multiplier=0.0, expected_batch=6.0))
    assert torch.allclose(found.shift, expected, atol=1e-5)
    assert torch.allclose(found.weight, torch.ones(2))


def test_the_numbers_told_are_those_that_the_study_says() -> None:
    promised = STUDY.model_copy(
        update={"privacy": STUDY.privacy.model_copy(update={"promise": type("P", (), {"noised": "means"})()})}
    )
    sizes: list[int] = []

    class Looking(SecretRandom):
        def normal(self, size: int) -> Tensor:
            sizes.append(size)
            return super().normal(size)

    private = PrivatePatients(SCANS, STUDY, CPU)
    noised_means(private, PUBLIC, 1.0, NoisedSum(1.0, 1.0, 6.0), Looking(CPU.torch))
    assert sizes == [numbers_noised(promised)] == [2 * (2 * 2 + 1)]


def test_one_patients_part_is_no_longer_than_the_clip_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far its intensities lie: the sum with a patient and without differ by C at most."""
    sums: list[Tensor] = []
    plain = torch.Tensor.__truediv__

    def looking(self: Tensor, other: object) -> Tensor:
        if isinstance(other, float) and other == 7.0:  # the expected batch: what stands before it is the sum
            sums.append(self.clone())
        return plain(self, other)  # type: ignore[operator]  # as torch itself takes it

    monkeypatch.setattr(torch.Tensor, "__truediv__", looking)
    for patients in (6, 5):
        target(patients, NoisedSum(clip_norm=0.3, noise_multiplier=0.0, expected_batch=7.0))
    change = (sums[0] - sums[1]).norm().item()
    assert 0.01 < change <= 0.3 * (1 + 1e-4)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_longest_vector_that_a_patient_can_have_is_as_long_as_is_said(channels: int) -> None:
    """Every mean at the largest shift, every label there, and a clip norm that clips nothing."""
    study = tiny_study(channels=("T1", "FLAIR")[:channels])
    far = PublicMeans(torch.zeros(2, 2 * channels), torch.full((2, 2 * channels), 1e-9))
    patient = PrivatePatients(tiny_scans(1, channels=channels), study, CPU)
    found = noised_vector(patient, far, 1.0, NoisedSum(1e6, 0.0, 1.0), SecretRandom(CPU.torch))
    assert found.norm().item() == pytest.approx(longest_means(channels), rel=1e-5)


def test_the_target_is_not_marked_and_noise_makes_two_of_them_differ() -> None:
    how = NoisedSum(clip_norm=1.0, noise_multiplier=0.6, expected_batch=6.0)
    one, other = target(6, how), target(6, how)
    assert not marked(one.shift)
    assert not marked(one.weight)
    assert not torch.equal(one.shift, other.shift)


def test_noise_that_drowns_the_patients_leaves_the_public_means() -> None:
    found = target(6, NoisedSum(clip_norm=1.0, noise_multiplier=1e4, expected_batch=6.0))
    assert found.shift.abs().max() < 1e-2


def test_a_batch_that_matches_loses_nothing_and_one_that_is_brighter_does() -> None:
    given, volumes = tensors(slice(0, 6))
    shift = PUBLIC.shift(*label_means(given, volumes)).mean(dim=0)
    wanted = TargetMeans(shift, torch.ones(2))
    assert means_loss(PUBLIC, wanted, given, volumes).item() == pytest.approx(0, abs=1e-8)
    assert means_loss(PUBLIC, wanted, given, volumes + 0.3).item() > 0.1


def test_a_label_that_may_not_be_relied_on_pulls_nowhere() -> None:
    given, volumes = tensors(slice(0, 6))
    wanted = TargetMeans(torch.full((2, 4), 2.0), torch.tensor([0.0, 1.0]))
    volumes.requires_grad_(True)
    (gradient,) = torch.autograd.grad(means_loss(PUBLIC, wanted, given, volumes), volumes)
    brain, tumour = given[:, 1:2].bool(), given[:, 2:3].bool()
    assert not gradient[brain.expand_as(gradient)].any()
    assert gradient[tumour.expand_as(gradient)].any()


def test_public_means_have_the_scale_of_one_where_a_label_is_too_rare_to_tell() -> None:
    scans = tiny_scans(1)
    found: PublicMeans = public_means(scans, STUDY, CPU)
    assert torch.equal(found.scale, torch.ones(2, 4))
    assert math.isfinite(found.centre.abs().max().item())
