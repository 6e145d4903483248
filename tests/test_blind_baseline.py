"""B0 sees what tells members from holdout before any network is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from memorisers import (
    make_scans,
)
from numpy.typing import NDArray

from fedphantom.common.errors import DataError
from fedphantom.privacy.attacks.blind import blind_baseline
from fedphantom.privacy.statistics import auc


def test_b0_finds_a_brighter_scanner_among_members() -> None:
    scans = make_scans(60)
    shift = np.array(scans.member, np.float32)[:, None, None, None, None] * 0.5
    biased = replace(scans, images=scans.images + shift)
    baseline = blind_baseline(biased, 0, permutations=10)
    assert auc(baseline.scores.scores()) > 0.95
    assert baseline.scores.threat_model == "none"


def test_b0_finds_larger_structures_and_a_telling_header() -> None:
    scans = make_scans(60)
    labels = scans.labels.copy()
    labels[np.array(scans.member), :4] = 0
    by_label = blind_baseline(replace(scans, labels=labels), 0, permutations=5)
    assert auc(by_label.scores.scores()) > 0.95
    header = np.array(scans.member, np.float64)[:, None] + np.random.default_rng(1).normal(0, 0.1, (60, 1))
    by_header = blind_baseline(scans, 0, header, permutations=5)
    assert auc(by_header.scores.scores()) > 0.95


def test_b0_finds_nothing_in_a_fair_split() -> None:
    found = []
    for seed in range(4):
        baseline = blind_baseline(make_scans(60, seed=seed), seed, permutations=20)
        spread = float(baseline.null.std())
        assert spread > 0
        found.append((auc(baseline.scores.scores()) - 0.5) / spread)
    assert abs(np.mean(found)) < 1.5
    assert max(np.abs(found)) < 3


def test_b0_refuses_a_handful_and_broken_features() -> None:
    with pytest.raises(DataError):
        blind_baseline(make_scans(18), 0, permutations=2)
    header: NDArray[np.float64] = np.full((60, 1), np.nan)
    with pytest.raises(DataError):
        blind_baseline(make_scans(60), 0, header, permutations=2)
