"""How true synthetic scans are, measured at the site on its own real patients; only aggregates are told.

Four measures, each beside a yardstick of real scans: whether a segmenter trained on real patients finds the input
label map in a synthetic volume again; how far each tissue's intensities lie from real ones; how alike synthetic scans
are to each other; whether the segmenter's encoder tells them from real ones. *Real* is the test patients throughout:
neither the generator nor the segmenter has seen them, so a generator that repeats its patients gains nothing by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ...common.cohorts.preparation import PreparedScans
from ...common.device import Device
from ...common.parallel import side_by_side
from ...common.randomness import numpy_generator
from ...common.segmentation import SegmenterPlan, dice, encoder_features, segment
from ...common.study import Study
from .carriers import carried, carriers
from .disclosure import check_enough
from .discrepancy import PERMUTATIONS, Discrepancy, discrepancy
from .diversity import KERNEL, MOST_SCANS, Similarity, pair_similarities, scale_weights, similarity
from .figures import Figure, Floats, over_patients, per_patient
from .intensities import IntensityDistance, intensity_distances, tissue_histograms
from .material import Material
from .scores import region_members, repeated_regions
from .segmenters import Examination, Phase, Pool, Segmenter, check_disjoint, train_phases
from .tested import Examined

MOST_SYNTHETIC = 256
"""Synthetic scans that are looked at, drawn by the seed: memory and time stay bounded however many there are."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Refound:
    """Dice of one region as a segmenter of real patients finds it, against the label map.

    Attributes:
        synthetic: Over synthetic scans, against the map that the scan was painted from.
        real: Over real test patients, against their own map: what the segmenter can do at all.
    """

    synthetic: Figure
    real: Figure


@dataclass(frozen=True)
class Fidelity:
    """All four measures.

    Attributes:
        refound: By region that some test patient and some synthetic scan has.
        carriers: By region, test patients who have it.
        synthetic_carriers: By region, synthetic scans that have it.
        repeated: Region to an earlier one that is the same structure.
        intensities: By label and channel.
        synthetic_pairs: Similarity of synthetic scans to each other.
        real_pairs: Of as many real patients' scans.
        scales: Of the MS-SSIM, as many as the grid has room for.
        features: Real against synthetic at the encoder's narrowest point.
        training_patients: Of the segmenter.
        test_patients: Patients measured on.
        whom: Whether these and those are persons.
        synthetic_scans: Synthetic scans measured.
        plan: Of the segmenter.
        seed: Of the segmenter and every draw.
        synthetic_sha256: Of the synthetic cohort's files, by content.
    """

    refound: Mapping[str, Refound]
    carriers: Mapping[str, int]
    synthetic_carriers: Mapping[str, int]
    repeated: Mapping[str, str]
    intensities: tuple[IntensityDistance, ...]
    synthetic_pairs: Similarity
    real_pairs: Similarity
    scales: int
    features: Discrepancy
    training_patients: int
    test_patients: int
    whom: Examined
    synthetic_scans: int
    plan: SegmenterPlan
    seed: int
    synthetic_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Means, intervals and counts; nothing of a single patient."""
        return {
            "protocol": "fidelity",
            "notice": self.whom.notice,
            "refinding": {
                region: {"synthetic": _figure(found.synthetic), "real": _figure(found.real)}
                for region, found in self.refound.items()
            },
            "test_patients_with": dict(self.carriers),
            "synthetic_scans_with": dict(self.synthetic_carriers),
            "intensity_distance": [
                {"label": d.label, "channel": d.channel, "synthetic": _rounded(d.synthetic), "real": _rounded(d.real)}
                for d in self.intensities
            ],
            "ms_ssim": {
                "synthetic": _similarity(self.synthetic_pairs),
                "real": _similarity(self.real_pairs),
                "scales": self.scales,
                "window_voxels": KERNEL,
            },
            "mmd": {
                "squared": round(self.features.mmd2, 6),
                "null_95": round(self.features.null95, 6),
                "p_value": round(self.features.p_value, 5),
                "permutations": PERMUTATIONS,
            },
            "counts": {
                **self.whom.to_json(),
                "training_patients": self.training_patients,
                "test_patients": self.test_patients,
                "synthetic_scans": self.synthetic_scans,
            },
            "segmenter": {"steps": self.plan.steps, "batch": self.plan.batch, "seed": self.seed},
            "synthetic_sha256": self.synthetic_sha256,
        }


def measure_fidelity(
    material: Material,
    plan: SegmenterPlan,
    seed: int,
    device: Device,
    say: Say,
    progress: Callable[[int, int], None],
) -> Fidelity:
    """Train a segmenter on the real training patients, then measure.

    Args:
        material: Real and synthetic scans.
        plan: Of the segmenter.
        seed: Of the segmenter and every draw.
        device: Where to compute; on the CPU one thread, so that the result does not depend on the cores.
        say: Told each part as it begins.
        progress: Called during training.

    Raises:
        DataError: too few test patients or synthetic scans, or none with any structure, or a test patient who was
            trained on.
        TrainingError: the segmenter's loss is not finite.
    """
    check_enough(len(set(material.test.patients)), "test patients")
    check_enough(len(material.synthetic), "synthetic scans")
    examination = Examination(Pool(material.test), material.study, device)
    segmenter, synthetic = (
        Segmenter(name, (Phase(Pool(scans), tuple(range(len(scans))), plan),), seed)
        for name, scans in (("real", material.train), ("synthetic", material.synthetic))
    )
    check_disjoint([segmenter, synthetic], examination.test)  # the second is never trained

    def measured() -> Fidelity:
        say("training the segmenter on real patients ...")
        network = train_phases(segmenter, examination, lambda _, done, total: progress(done, total))
        say("finding labels again; comparing intensities, pairs of scans and features ...")
        return _measure(network, material, plan, seed, device)

    [(_, fidelity)] = side_by_side([measured])
    return fidelity


def _measure(network: nn.Module, material: Material, plan: SegmenterPlan, seed: int, device: Device) -> Fidelity:
    study, test, made = material.study, material.test, material.synthetic
    all_real, some_made = range(len(test)), _drawn(range(len(made)), MOST_SYNTHETIC, seed)
    one_each = [int(test.rows_of([name])[0]) for name in sorted(set(test.patients))]
    pairs = min(MOST_SCANS, len(one_each), len(some_made))
    of_real, of_made = (
        _refound(network, test, all_real, study, device),
        _refound(network, made, some_made, study, device),
    )
    having, made_having = carriers(test, study), carriers(made.only(some_made), study)
    names = {value: name for name, value in study.labels.items()}
    return Fidelity(
        refound={
            region: Refound(of_made[region], of_real[region]) for region in carried(having) if made_having[region]
        },
        carriers=having,
        synthetic_carriers=made_having,
        repeated=repeated_regions(study),
        intensities=intensity_distances(
            tissue_histograms(test, all_real, len(study.labels)),
            tissue_histograms(made, some_made, len(study.labels)),
            [names[value] for value in study.label_values[1:]],
            study.channels,
            seed,
        ),
        synthetic_pairs=similarity(pair_similarities(made.volumes, _drawn(some_made, pairs, seed), device), seed),
        real_pairs=similarity(pair_similarities(test.volumes, _drawn(one_each, pairs, seed), device), seed),
        scales=len(scale_weights(study.grid.shape)),
        features=discrepancy(
            _features(network, test, all_real, study, device), _features(network, made, some_made, study, device), seed
        ),
        training_patients=len(set(material.train.patients)),
        test_patients=len(one_each),
        whom=material.examined,
        synthetic_scans=len(some_made),
        plan=plan,
        seed=seed,
        synthetic_sha256=material.synthetic_sha256,
    )


def _drawn(rows: Sequence[int], most: int, seed: int) -> list[int]:
    """At most so many of the rows, in their order."""
    order = numpy_generator(seed, "fidelity").permutation(len(rows))[:most]
    return [rows[i] for i in sorted(order)]


def _refound(
    network: nn.Module, scans: PreparedScans, rows: Sequence[int], study: Study, device: Device
) -> dict[str, Figure]:
    """Dice of each region over patients, scan by scan: however many there are, one is in memory."""
    found: dict[str, list[float]] = {region: [] for region in region_members(study)}
    for row in rows:
        predicted = segment(network, scans.volumes[row : row + 1], device, study.training.patch)
        for region, members in region_members(study).items():
            found[region].append(float(dice(predicted, scans.classes[row : row + 1], members)[0]))
    patients = [scans.patients[row] for row in rows]
    return {region: over_patients(per_patient(np.asarray(values), patients)) for region, values in found.items()}


def _features(network: nn.Module, scans: PreparedScans, rows: Sequence[int], study: Study, device: Device) -> Floats:
    """Encoder features, one row a patient: the mean over the patient's scans."""
    patch = study.training.patch
    each = np.concatenate([encoder_features(network, scans.volumes[row : row + 1], device, patch) for row in rows])
    patients = [scans.patients[row] for row in rows]
    return np.stack([per_patient(column, patients) for column in each.T], axis=1)


def _figure(figure: Figure) -> dict[str, Any]:
    return {"mean": round(figure.mean, 4), "ci": [round(figure.low, 4), round(figure.high, 4)], "n": figure.patients}


def _similarity(pairs: Similarity) -> dict[str, Any]:
    return {"mean": round(pairs.mean, 4), "ci": [round(pairs.low, 4), round(pairs.high, 4)], "n": pairs.scans}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
