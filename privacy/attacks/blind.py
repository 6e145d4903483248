"""B0: can members be told from holdout without the model at all? (Das et al. 2024, arXiv 2406.16201)

If so, the split is biased and every other attack's success is worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ...common.cohorts.disk_rows import let_go
from ...common.counted import counted
from ...common.errors import DataError
from ...common.randomness import numpy_generator
from ..evidence import BLIND
from ..statistics import Floats, auc
from .interface import AttackScores, AuditedScans, foreground, of_patients
from .once import Arrays

MIN_PATIENTS = 10
"""A side: below this, nested cross-validation has no folds to learn in."""

_FOLDS = 5
_PENALTIES = tuple(float(10.0**k) for k in range(-1, 5))
_PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class BlindBaseline:
    """B0's scores, and what the same procedure scores where there is nothing to find.

    Attributes:
        scores: Out-of-fold.
        null: AUCs with coins shuffled within site, shape (permutations,). Out-of-fold scores depend on each
            other through the shared training patients, so that their AUC spreads wider than Mann-Whitney's
            formula says (about 1.4 times at 25 and at 50 patients a side); intervals must be widened by this.
    """

    scores: AttackScores
    null: Floats

    @classmethod
    def found(cls, scans: AuditedScans, arrays: Arrays) -> BlindBaseline:
        """Of these scans, from :meth:`arrays`."""
        return cls(of_patients(BLIND, scans, arrays["score"]), arrays["null"])

    def arrays(self) -> Arrays:
        """For whoever keeps it."""
        return {"score": self.scores.score, "null": self.null}


def blind_baseline(
    scans: AuditedScans, seed: int, header: Floats | None = None, permutations: int = 200
) -> BlindBaseline:
    """A penalised linear classifier on simple features of image, labels and header, by nested cross-validation.

    Outer folds give out-of-fold scores, as ranks within the fold since folds differ in offset; within each,
    the penalty is chosen by leave-one-out.

    Args:
        scans: Members and holdout.
        seed: Draws the folds and shuffles the coins, in a stream of its own.
        header: Header features of each scan (scanner, year, …), shape (N, F), finite.
        permutations: Shuffles for ``null``.

    Raises:
        DataError: under :data:`MIN_PATIENTS` on a side, or a feature is not finite.
    """
    rng = numpy_generator(seed, "blind baseline")
    patients, features = _features_by_patient(scans, header)
    member = set(scans.side(True))
    truth = np.array([p in member for p in patients], dtype=bool)
    smaller = int(min(truth.sum(), (~truth).sum()))
    if smaller < MIN_PATIENTS:
        raise DataError(
            f"{counted(smaller, 'patient')} on the smaller side of the blind baseline",
            expected=f"at least {MIN_PATIENTS} members and holdout patients",
            remedy="Audit a larger cohort.",
        )
    site_of = dict(zip(scans.patients, scans.sites, strict=True))
    sites = tuple(site_of[p] for p in patients)

    def run(coins: NDArray[np.bool_]) -> AttackScores:
        return AttackScores(BLIND, "none", patients, sites, coins, _out_of_fold(features, coins, rng))

    null = [auc(run(_shuffled(truth, sites, rng)).scores()) for _ in range(permutations)]
    return BlindBaseline(run(truth), np.array(null))


def _shuffled(truth: NDArray[np.bool_], sites: tuple[str, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    out, site = truth.copy(), np.array(sites, dtype=str)
    for name in np.unique(site):
        out[site == name] = rng.permutation(truth[site == name])
    return out


def _out_of_fold(features: Floats, truth: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    score = np.zeros(len(truth))
    target = np.where(truth, 1.0, -1.0)
    for train, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=int(rng.integers(2**31))).split(
        features, truth
    ):
        model = make_pipeline(StandardScaler(), RidgeCV(alphas=_PENALTIES)).fit(features[train], target[train])
        score[test] = stats.rankdata(model.predict(features[test])) / (len(test) + 1)
    return score


def _features_by_patient(scans: AuditedScans, header: Floats | None) -> tuple[tuple[str, ...], Floats]:
    values = [int(v) for v in np.unique(scans.labels) if v]
    judged = foreground(scans.images, scans.labels)
    rows: list[Floats] = []
    for image, label, inside in zip(scans.images, scans.labels, judged, strict=True):
        rows.append(np.concatenate([_image_features(image, inside), _label_features(label, values)]))
        let_go(scans.images)
    table = np.stack(rows) if header is None else np.concatenate([np.stack(rows), header], axis=1)
    if not np.isfinite(table).all():
        raise DataError(
            "the blind baseline found a non-finite feature",
            expected="finite voxels and header values",
            remedy="Run 'fedphantom cohort check'.",
        )
    patients = tuple(sorted(set(scans.patients)))
    return patients, np.stack([table[scans.of([p])].mean(axis=0) for p in patients])


def _image_features(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> Floats:
    out: list[float] = []
    for channel in image.astype(np.float64):
        voxels = channel[inside]
        out += [float(voxels.mean()), float(voxels.std()), *np.percentile(voxels, _PERCENTILES).tolist()]
        out += [float(np.abs(np.diff(channel, axis=axis)).mean()) for axis in range(3)]
    return np.array(out)


def _label_features(label: NDArray[np.uint8], values: list[int]) -> Floats:
    out: list[float] = []
    for value in values:
        where = np.argwhere(label == value)
        centre = where.mean(axis=0) if len(where) else np.array(label.shape) / 2
        out += [len(where) / label.size, *(centre / label.shape).tolist()]
    return np.array(out)
