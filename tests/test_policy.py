"""The release policy: three tiers, and no threshold moved without a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from officers import LAST_DAY, OFFICERS, SECONDS, key_files, policy_text, signer_table

from fedphantom.cli import run
from fedphantom.common.errors import ConfigError
from fedphantom.common.keys import key_id
from fedphantom.privacy.policy import TIERS, OverrideReason, parse_policy, read_policy, read_thresholds
from fedphantom.privacy.release.policy_file import unnamed_signers


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
    assert read_thresholds(None) == TIERS["controlled"]
    (tmp_path / "policy.toml").write_text('tier = "public"')
    assert read_thresholds(tmp_path / "policy.toml") == TIERS["public"]


def test_an_override_carries_why_who_and_when() -> None:
    why = OverrideReason("data use agreement forbids linkage", "the board", "2026-11-20")
    policy = parse_policy(f'tier = "controlled"\n[override.auc_upper_max]\nvalue = 0.7\nreason = "{why.reason}"\n{WHO}')
    assert policy.thresholds == replace(TIERS["controlled"], auc_upper_max=0.7, reasons={"auc_upper_max": why})


def test_people_who_may_sign_are_known_by_their_keys() -> None:
    policy = parse_policy(policy_text("site-a", "second_person = true"))
    named = {(signer.role, signer.key) for signer in policy.signers}
    assert named == {
        ("compliance officer", key_id(OFFICERS["site-a"].public_key())),
        ("second person", key_id(SECONDS["site-a"].public_key())),
    }
    assert {signer.expires.isoformat() for signer in policy.signers} == {LAST_DAY}
    assert policy.second_person


def test_no_policy_is_written_whose_keys_no_longer_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, officer = key_files(tmp_path, "officer", OFFICERS["site-a"])
    line = ["release", "policy", str(tmp_path / "p.toml"), "--officer", str(officer), "--expires", "2026-11-01"]
    assert run(line) == 3
    assert "2026-11-01, that is over" in capsys.readouterr().err
    assert not (tmp_path / "p.toml").exists()


def test_a_name_that_nobody_wrote_in_is_told(tmp_path: Path) -> None:
    _, officer = key_files(tmp_path, "officer", OFFICERS["site-a"])
    line = ["release", "policy", str(tmp_path / "p.toml"), "--officer", str(officer), "--expires", LAST_DAY]
    assert run(line) == 0
    (told,) = unnamed_signers([read_policy(tmp_path / "p.toml")])
    assert "still names its compliance officer 'to be filled in'" in told
    assert unnamed_signers([parse_policy(policy_text("site-a"))]) == ()


@pytest.mark.parametrize("second", [False, True])
def test_a_policy_written_to_start_from_is_one(second: bool, tmp_path: Path) -> None:
    _, officer = key_files(tmp_path, "officer", OFFICERS["site-a"])
    _, other = key_files(tmp_path, "other", SECONDS["site-a"])
    line = ["release", "policy", str(tmp_path / "p.toml"), "--officer", str(officer), "--expires", LAST_DAY]
    assert run([*line, "--second-person", str(other)] if second else line) == 0
    policy = read_policy(tmp_path / "p.toml")
    assert (policy.thresholds, policy.second_person, len(policy.signers)) == (TIERS["controlled"], second, 1 + second)


def test_a_policy_is_not_written_for_one_person_in_both_roles(tmp_path: Path) -> None:
    _, officer = key_files(tmp_path, "officer", OFFICERS["site-a"])
    line = ["release", "policy", str(tmp_path / "p.toml"), "--officer", str(officer), "--expires", LAST_DAY]
    assert run([*line, "--second-person", str(officer)]) == 3
    assert not (tmp_path / "p.toml").exists()


WHO = 'by = "the board"\non = 2026-11-20\n'
OFFICER = signer_table(OFFICERS["site-a"])
REFUSED = {
    "nobody who decided": '[override.auc_upper_max]\nvalue = 0.7\nreason = "a good reason"\non = 2026-11-20',
    "no day of the decision": '[override.auc_upper_max]\nvalue = 0.7\nreason = "a good reason"\nby = "the board"',
    "a second person asked for, and none listed": f"second_person = true\n{OFFICER}",
    "a second person alone": signer_table(SECONDS["site-a"], "second person"),
    "one key for two people": OFFICER + signer_table(OFFICERS["site-a"], "second person"),
    "another role": signer_table(OFFICERS["site-a"], "dean"),
    "a key that is none": OFFICER.replace("BEGIN PUBLIC KEY", "BEGIN SECRET KEY"),
    "a key without its end": OFFICER.replace("-----END PUBLIC KEY-----", ""),
    "an unknown key of a signer": f'{OFFICER}mail = "a@b"',
    "no last day": OFFICER.replace(f"expires = {LAST_DAY}\n", ""),
    "a last day in quotation marks": OFFICER.replace(LAST_DAY, f'"{LAST_DAY}"'),
    "a last hour": OFFICER.replace(LAST_DAY, f"{LAST_DAY}T12:00:00"),
    "no TOML": "tier = ",
    "an unknown tier": 'tier = "secret"',
    "an unknown key": "max_auc = 1",
    "an unknown threshold": '[override.auc]\nvalue = 0.7\nreason = "a good reason"',
    "no reason": "[override.auc_upper_max]\nvalue = 0.7\n" + WHO,
    "an empty reason": '[override.auc_upper_max]\nvalue = 0.7\nreason = "           "\n' + WHO,
    "a word for a reason": '[override.auc_upper_max]\nvalue = 0.7\nreason = "necessarily"\n' + WHO,
    "an AUC below chance": '[override.auc_upper_max]\nvalue = 0.4\nreason = "a good reason"\n' + WHO,
    "an AUC above one": '[override.auc_upper_max]\nvalue = 1.4\nreason = "a good reason"\n' + WHO,
    "a value that is not a number": '[override.auc_upper_max]\nvalue = nan\nreason = "a good reason"\n' + WHO,
    "a holdout on which nothing can be read": '[override.min_holdout]\nvalue = 10\nreason = "a good reason"\n' + WHO,
    "a formal promise demanded where the tier asks for none": (
        '[override.formal_epsilon_binds]\nvalue = true\nreason = "a good reason"\n' + WHO
    ),
    "a waiver without a reason": "[override.formal_epsilon_binds]\nvalue = false\n" + WHO,
    "a change of direction in a reason": '[override.auc_upper_max]\nvalue = 0.7\nreason = "good \\u202e reason"\n'
    + WHO,
    "a terminal's sequence in a reason": '[override.auc_upper_max]\nvalue = 0.7\nreason = "good \\u009b31m reason"\n'
    + WHO,
    "one who decided with a change of direction": (
        '[override.auc_upper_max]\nvalue = 0.7\nreason = "a good reason"\nby = "board\\u202e"\non = 2026-11-20'
    ),
    "a signer's name with a change of direction": OFFICER.replace('name = "', 'name = "\\u202e'),
    "a number of 5000 digits": "tier = " + "9" * 5000,
    "a number beyond 64 bits": "[override.min_holdout]\nvalue = 0x" + "f" * 5000 + '\nreason = "a good reason"\n' + WHO,
    "half a patient": '[override.min_holdout]\nvalue = 30.5\nreason = "a good reason"\n' + WHO,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_a_policy_that_says_less_than_it_must_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_policy(text)
    assert refusal.value.exit_code == 3


def test_a_missing_policy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_policy(tmp_path / "none.toml")
