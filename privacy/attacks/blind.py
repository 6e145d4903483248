"""B0: can members be told from holdout without the model at all? (Das et al. 2024, arXiv 2406.16201)

If so, the split is biased and every other attack's success is worth nothing.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ...common.errors import DataError
from ..statistics import Floats
from .interface import AttackScores, AuditedScans, foreground

MIN_PATIENTS = 10
"""A side: below this, nested cross-validation has no folds to learn in."""

_FOLDS = 5
_REPEATS = 4
_PERCENTILES = (5, 25, 50, 75, 95)


def blind_scores(scans: AuditedScans, rng: np.random.Generator, header: Floats | None = None) -> AttackScores:
    """Out-of-fold scores of a penalised logistic regression on simple features of image, labels and header.

    The penalty is chosen by an inner cross-validation. Scores become ranks within each outer fold, since
    folds differ in offset, and are averaged over repeats.

    Args:
        scans: Members and holdout.
        rng: Draws the folds.
        header: Header features of each scan (scanner, year, …), shape (N, F), finite.

    Raises:
        DataError: under :data:`MIN_PATIENTS` on a side, or a feature is not finite.
    """
    patients, features = _features_by_patient(scans, header)
    member = set(scans.side(True))
    truth = np.array([p in member for p in patients], dtype=np.int64)
    smaller = int(min(truth.sum(), (1 - truth).sum()))
    if smaller < MIN_PATIENTS:
        raise DataError(
            f"{smaller} patients on the smaller side of the blind baseline",
            expected=f"at least {MIN_PATIENTS} members and holdout patients",
            remedy="Audit a larger cohort.",
        )
    site = dict(zip(scans.patients, scans.sites, strict=True))
    score = np.zeros(len(patients))
    for _ in range(_REPEATS):
        outer = StratifiedKFold(_FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
        for train, test in outer.split(features, truth):
            guess = _fit(features[train], truth[train], int(rng.integers(2**31))).decision_function(features[test])
            score[test] += stats.rankdata(guess) / (len(test) + 1) / _REPEATS
    return AttackScores(
        id="B0",
        threat_model="none",
        patients=patients,
        sites=tuple(site[p] for p in patients),
        is_member=truth.astype(bool),
        score=score,
    )


def _fit(features: Floats, truth: NDArray[np.int64], seed: int) -> GridSearchCV:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    search = GridSearchCV(
        model,
        {"logisticregression__C": [0.001, 0.01, 0.1, 1.0]},
        scoring="roc_auc",
        cv=StratifiedKFold(3, shuffle=True, random_state=seed),
    )
    with warnings.catch_warnings():
        # A fit that has not converged after 500 steps is as honest a baseline.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return search.fit(features, truth)


def _features_by_patient(scans: AuditedScans, header: Floats | None) -> tuple[tuple[str, ...], Floats]:
    values = [int(v) for v in np.unique(scans.labels) if v]
    judged = foreground(scans.images, scans.labels)
    rows = [
        np.concatenate([_image_features(image, inside), _label_features(label, values)])
        for image, label, inside in zip(scans.images, scans.labels, judged, strict=True)
    ]
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
