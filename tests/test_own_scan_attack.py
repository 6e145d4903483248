"""The attack on a network from images to labels: it finds one that learnt by heart, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_anatomy import anatomy_study
from tiny_cohorts import tiny_scans

from fedphantom.common.errors import DataError
from fedphantom.common.gan.image_variation import inferred_classes
from fedphantom.common.gan.networks import Generator, make_generator
from fedphantom.privacy.attacks.interface import AuditedScans, Images, foreground
from fedphantom.privacy.attacks.own_scan import Read, own_scan_losses, own_scan_scores
from fedphantom.privacy.statistics import auc

STUDY = anatomy_study()
CLASSES = inferred_classes(STUDY)


def audited(members: int, holdout: int, seed: int = 0) -> AuditedScans:
    scans = tiny_scans(members + holdout, seed=seed)
    return AuditedScans(
        scans.volumes,
        scans.classes,
        scans.patients,
        scans.sites,
        tuple(i < members for i in range(members + holdout)),
    )


def reads(network: Generator) -> Read:
    def read(images: Images) -> Images:
        with torch.inference_mode():
            given = torch.from_numpy(np.array(images))
            return network(given, given[:, :0]).numpy()

    return read


def with_random_borders(scans: AuditedScans) -> AuditedScans:
    """Label maps that no image explains everywhere: only who saw them knows them."""
    random = np.random.default_rng(5)
    labels = np.where((scans.labels == 1) & (random.random(scans.labels.shape) < 0.3), 0, scans.labels)
    return AuditedScans(scans.images, labels.astype(np.uint8), scans.patients, scans.sites, scans.member)


def threshold_reader(images: Images) -> Images:
    """Knows tissues by their brightness, and nobody."""
    t1 = images[:, 0]
    shares = np.stack([t1 < -0.9, (t1 >= -0.9) & (t1 < 0.3), t1 >= 0.3], axis=1)
    return (0.7 * shares + 0.1).astype(np.float32)


def learnt_by_heart(scans: AuditedScans, how_well: float) -> Read:
    """The same, but where it recognises a scan it knows that scan's label map, to this degree."""
    known = {image.tobytes(): labels for image, labels in zip(scans.images, scans.labels, strict=True)}

    def read(images: Images) -> Images:
        out = threshold_reader(images)
        for i, image in enumerate(images):
            if image.tobytes() in known:
                own = np.stack([known[image.tobytes()] == label for label in range(3)])
                out[i] = (1 - how_well) * out[i] + how_well * own
        return out

    return read


@pytest.mark.parametrize(("how_well", "least", "most"), [(0.5, 1.0, 1.0), (0.05, 0.9, 1.0), (0.0, 0.5, 0.5)])
def test_members_are_told_from_strangers_where_the_network_knows_them_and_only_there(
    how_well: float, least: float, most: float
) -> None:
    scans = with_random_borders(audited(20, 20))
    judged = foreground(scans.images, scans.labels)
    members = scans.take(np.flatnonzero(scans.member))
    target, reference = (
        own_scan_losses(network, scans, CLASSES, judged)
        for network in (learnt_by_heart(members, how_well), threshold_reader)
    )
    attack = own_scan_scores(target, reference, scans)
    assert attack.threat_model == "G"
    assert least <= auc(attack.scores()) <= most


def test_the_loss_is_the_mean_cross_entropy_of_the_own_classes_in_judged_voxels() -> None:
    scans = audited(1, 0)
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], scans.labels.shape).transpose(0, 4, 1, 2, 3)
    judged = np.zeros(scans.labels.shape, bool)
    judged[0, 3:9, 4:8, 5:12] = True
    found = own_scan_losses(lambda images: shares.astype(np.float32), scans, CLASSES, judged)
    own = np.take_along_axis(shares[0], scans.labels[0].astype(int)[None], axis=0)[0]
    assert found[0] == pytest.approx(-np.log(own[judged[0]]).mean(), rel=1e-5)


def test_labels_that_are_laid_over_are_one_class() -> None:
    scans = audited(1, 0)
    merged = np.array([0, 1, 1])

    def sure(images: Images) -> NDArray[np.float32]:
        return np.stack([merged[scans.labels] == c for c in range(2)], axis=1).astype(np.float32)

    everywhere = np.ones(scans.labels.shape, bool)
    assert own_scan_losses(sure, scans, merged, everywhere)[0] == pytest.approx(0, abs=1e-5)


def test_a_hard_scan_is_no_member_for_that() -> None:
    scans = audited(4, 4)
    hard = np.linspace(0.1, 0.8, 8)
    assert np.allclose(own_scan_scores(hard, hard + 0.05, scans).score, 0.05)


def test_batches_do_not_change_a_scans_loss() -> None:
    scans = audited(9, 0)
    judged = foreground(scans.images, scans.labels)
    read = reads(make_generator(STUDY, 3))
    together = own_scan_losses(read, scans, CLASSES, judged)
    alone = own_scan_losses(read, scans.take(np.array([5])), CLASSES, judged[5:6])
    assert together[5] == pytest.approx(alone[0], rel=1e-4)


@pytest.mark.parametrize("wrong", ["classes", "scans", "finite"])
def test_a_network_of_another_study_is_refused(wrong: str) -> None:
    scans = audited(2, 0)
    shape = {"classes": (2, 2), "scans": (1, 3), "finite": (2, 3)}[wrong]
    shares = np.full((*shape, *scans.labels.shape[1:]), np.nan if wrong == "finite" else 0.5, np.float32)
    with pytest.raises(DataError, match="output of shape"):
        own_scan_losses(lambda images: shares, scans, CLASSES, np.ones(scans.labels.shape, bool))
