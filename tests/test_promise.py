"""What a study may promise, and what it may not be together with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from promised import promised_text
from tiny_cohorts import tiny_text

from fedphantom.cli import run
from fedphantom.common.errors import ConfigError
from fedphantom.common.study import parse_study

TEXT = promised_text("a" * 64)


def test_a_promised_study_parses_and_its_paired_twin_promises_nothing() -> None:
    study = parse_study(TEXT)
    assert study.privacy.promise is not None
    twin = study.paired()
    assert (twin.training.objective, twin.training.start, twin.privacy.dp) == ("paired", None, "none")
    assert twin.privacy.promise is None


def test_no_key_of_a_promise_is_part_of_a_study_that_makes_none() -> None:
    """So that no digest of an earlier study changes."""
    dumped = json.dumps(parse_study(tiny_text()).model_dump(mode="json"))
    assert "promise" not in dumped
    assert '"start"' not in dumped


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('objective = "adversarial"', 'objective = "paired"', "must be 'adversarial'"),
        ('dp = "patient-level"', 'dp = "none"', "privacy.promise"),
        ("epsilon = 8.0", "epsilon = 0.0", "epsilon"),
        ("epsilon = 8.0", "epsilon = inf", "epsilon"),
        ("delta = 0.005", "delta = 0.0", "delta"),
        ("delta = 0.005", "delta = 1.0", "delta"),
        ("delta = 0.005", "delta = 0.005\nsampling_rate = 0.0", "sampling_rate"),
        ("delta = 0.005", "delta = 0.005\nsampling_rate = 1.5", "sampling_rate"),
        ("delta = 0.005", "delta = 0.005\nclip_norm = 0.0", "clip_norm"),
        ("delta = 0.005", "delta = 0.005\nclip_norm = inf", "clip_norm"),
        ("delta = 0.005", "delta = 0.005\nnoise_multiplier = -1.0", "noise_multiplier"),
        ("delta = 0.005", 'delta = 0.005\naccountant = "gdp"', "accountant 'gdp' is .*always below the truth"),
        ("delta = 0.005", 'delta = 0.005\naccountant = "GDP"', "accountant 'GDP' is .*always below the truth"),
        ("delta = 0.005", 'delta = 0.005\naccountant = "rdp"', "accountant 'rdp' is .*valid but loose"),
        ("delta = 0.005", 'delta = 0.005\naccountant = "prv"', "accountant 'prv' is .*cross-check"),
        ("delta = 0.005", 'delta = 0.005\naccountant = "moments"', "accountant 'moments' is unknown"),
        ("delta = 0.005", "delta = 0.005\naccountant = 1", "accountant"),
        ("delta = 0.005", 'delta = 0.005\nnoised = "generator"', "noised"),
        ('start = "' + "a" * 64, 'start = "' + "a" * 63, "start"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused_by_its_key(old: str, new: str, named: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=named):
        parse_study(TEXT.replace(old, new))


def test_the_official_accountant_may_be_named_and_changes_no_digest() -> None:
    named = parse_study(TEXT.replace("delta = 0.005", 'delta = 0.005\naccountant = "pld"'))
    assert named.digest() == parse_study(TEXT).digest()


def test_a_start_or_an_adversarial_objective_without_a_promise_is_refused() -> None:
    for extra in (f'start = "{"a" * 64}"', 'objective = "adversarial"'):
        with pytest.raises(ConfigError):
            parse_study(tiny_text().replace("[training]", f"[training]\n{extra}"))


def test_public_patients_need_no_promise() -> None:
    with pytest.raises(ConfigError, match="public patients need no promise"):
        parse_study(TEXT.replace('dp = "patient-level"', 'dp = "patient-level"\ntrained_on = "public"'))


# study check, study show


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "study.toml"
    file.write_text(TEXT)
    return file


def test_study_check_says_what_the_noise_means_at_a_sites_size(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "check", str(study), "--patients", "40"]) == 0
    said = capsys.readouterr().out
    for part in ("ε = 8 at δ = 0.005", "10 noised parameters", "r = σ√P/B̄ = "):
        assert part in said
    assert run(["study", "check", str(study), "--patients", "40", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["feasibility"]["outlook"] == "feasible"


def test_study_check_refuses_a_promise_that_leaves_pure_noise(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.write_text(TEXT.replace("delta = 0.005", 'delta = 0.005\nnoised = "all"\nsampling_rate = 0.2'))
    assert run(["study", "check", str(study), "--patients", "10"]) == 4
    assert "pure noise" in capsys.readouterr().err


@pytest.mark.parametrize(("patients", "code"), [("200", 3), ("0", 2), ("many", 2)])
def test_study_check_refuses_a_delta_of_one_over_n_and_numbers_that_are_none(
    study: Path, patients: str, code: int
) -> None:
    assert run(["study", "check", str(study), "--patients", patients]) == code


def test_patients_are_not_asked_for_where_nothing_is_promised(tmp_path: Path) -> None:
    file = tmp_path / "plain.toml"
    file.write_text(tiny_text())
    assert run(["study", "check", str(file), "--patients", "20"]) == 3


def test_study_show_says_the_promise_and_that_epsilon_leaves(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "show", str(study)]) == 0
    said = capsys.readouterr().out
    assert "patient-level differential privacy at every site, at most: ε = 8 at δ = 0.005" in said
    assert "With them the ε spent so far." in said
    assert "dp: none" not in said
