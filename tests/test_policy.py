"""The release policy: three tiers, and no threshold moved without a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedphantom.common.errors import ConfigError
from fedphantom.privacy.policy import TIERS, parse_policy, read_policy


def test_the_tiers_hold_the_published_thresholds() -> None:
    rows = {
        name: (p.auc_upper_max, p.tpr_lower_max, p.outlier_auc_upper_max, p.min_holdout, p.formal_epsilon_max)
        for name, p in TIERS.items()
    }
    assert rows == {
        "internal": (None, None, None, 20, None),
        "controlled": (0.65, 0.05, 0.75, 50, 8.0),
        "public": (0.60, 0.02, 0.70, 104, 3.0),
    }
    assert {p.linkage_upper_max for p in TIERS.values()} == {0.09}
    assert [p.attacks_must_not_reject for p in TIERS.values()] == [False, True, True]
    assert [p.formal_epsilon_binds for p in TIERS.values()] == [False, False, True]


def test_without_a_file_the_controlled_tier_rules(tmp_path: Path) -> None:
    assert read_policy(None) == TIERS["controlled"]
    (tmp_path / "policy.toml").write_text('tier = "public"')
    assert read_policy(tmp_path / "policy.toml") == TIERS["public"]


def test_an_override_carries_its_reason() -> None:
    reason = "data use agreement forbids linkage"
    policy = parse_policy(f'tier = "controlled"\n[override.auc_upper_max]\nvalue = 0.7\nreason = "{reason}"')
    assert policy == replace(TIERS["controlled"], auc_upper_max=0.7, reasons={"auc_upper_max": reason})


REFUSED = {
    "no TOML": "tier = ",
    "an unknown tier": 'tier = "secret"',
    "an unknown key": "max_auc = 1",
    "an unknown threshold": '[override.auc]\nvalue = 0.7\nreason = "a good reason"',
    "no reason": "[override.auc_upper_max]\nvalue = 0.7",
    "an empty reason": '[override.auc_upper_max]\nvalue = 0.7\nreason = "           "',
    "a word for a reason": '[override.auc_upper_max]\nvalue = 0.7\nreason = "necessarily"',
    "an AUC below chance": '[override.auc_upper_max]\nvalue = 0.4\nreason = "a good reason"',
    "an AUC above one": '[override.auc_upper_max]\nvalue = 1.4\nreason = "a good reason"',
    "a value that is not a number": '[override.auc_upper_max]\nvalue = nan\nreason = "a good reason"',
    "a holdout on which nothing can be read": '[override.min_holdout]\nvalue = 10\nreason = "a good reason"',
    "a formal promise demanded where the tier asks for none": (
        '[override.formal_epsilon_binds]\nvalue = true\nreason = "a good reason"'
    ),
    "a waiver without a reason": "[override.formal_epsilon_binds]\nvalue = false",
    "half a patient": '[override.min_holdout]\nvalue = 30.5\nreason = "a good reason"',
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_a_policy_that_says_less_than_it_must_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_policy(text)
    assert refusal.value.exit_code == 3


def test_a_missing_policy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_policy(tmp_path / "none.toml")
