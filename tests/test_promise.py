"""What a study may promise, and what it may not be together with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from promised import promised_text
from tiny_cohorts import tiny_text

from fedphantom.cli import run
from fedphantom.common.errors import ConfigError
from fedphantom.common.study import parse_study
from fedphantom.privacy.dp.accounting import epsilon
from fedphantom.privacy.dp.accounting import told as told_epsilon
from fedphantom.privacy.dp.plan import asked_feasibility, noised_plan

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
        ('dp = "patient-level"', 'dp = "none"', "privacy.promise: stands beside dp = 'none', which keeps none"),
        ("epsilon = 8.0", 'epsilon = "3"', "epsilon' is '3', which is text; expected a number"),
        ("epsilon = 8.0", "epsilon = true", "epsilon' is true; expected a number"),
        ("delta = 0.005", 'delta = 0.005\nspare_rounds = "2"', "which is text; expected a whole number"),
        ("seed = 5", 'seed = "5"', "seed' is '5', which is text; expected a whole number"),
        ("shape = [16", 'shape = ["16"', "which is text; expected a whole number"),
        ("epsilon = 8.0", "epsilon = 0.0", "epsilon"),
        ("epsilon = 8.0", "epsilon = inf", "epsilon"),
        ("delta = 0.005", "delta = 0.0", "delta"),
        ("delta = 0.005", "delta = 1.0", "delta"),
        ("delta = 0.005", "delta = 9e-13", "delta': below 1e-12, where no ε can be computed"),
        ("delta = 0.005", "delta = 1e-300", "delta': below 1e-12"),
        ("delta = 0.005", "delta = 0.005\nsampling_rate = 0.0", "sampling_rate"),
        ("delta = 0.005", "delta = 0.005\nsampling_rate = 9e-7", "sampling_rate.* a number of 1e-06 or more"),
        ("delta = 0.005", "delta = 0.005\nsampling_rate = 1.5", "sampling_rate"),
        ("delta = 0.005", "delta = 0.005\nclip_norm = 0.0", "clip_norm"),
        ("delta = 0.005", "delta = 0.005\nclip_norm = 9e-7", "clip_norm.* a number of 1e-06 or more"),
        ("delta = 0.005", "delta = 0.005\nclip_norm = 1e-45", "clip_norm"),
        ("delta = 0.005", "delta = 0.005\nclip_norm = 1.1e6", "clip_norm.* a number of at most 1e\\+06"),
        ("delta = 0.005", "delta = 0.005\nclip_norm = 1e300", "clip_norm"),
        ("delta = 0.005", "delta = 0.005\nclip_norm = inf", "clip_norm"),
        ("delta = 0.005", "delta = 0.005\nnoise_multiplier = -1.0", "noise_multiplier"),
        ("delta = 0.005", 'delta = 0.005\naccountant = "gdp"', "accountant 'gdp' is .*always below the truth"),
        ("delta = 0.005", 'delta = 0.005\naccountant = "GDP"', "accountant 'GDP' is .*always below the truth"),
        ("delta = 0.005", 'delta = 0.005\naccountant = "rdp"', "accountant 'rdp' is .*valid but loose"),
        ("delta = 0.005", 'delta = 0.005\naccountant = "prv"', "accountant 'prv' is .*cross-check"),
        ("delta = 0.005", 'delta = 0.005\naccountant = "moments"', "accountant 'moments' is unknown"),
        ("delta = 0.005", "delta = 0.005\naccountant = 1", "accountant"),
        ("delta = 0.005", 'delta = 0.005\nnoised = "generator"', "noised"),
        ("delta = 0.005", 'delta = 0.005\nnoised = "norms"\nfakes = "own"', "fakes"),
        ("delta = 0.005", 'delta = 0.005\nfakes = "public-label-maps"', "'means', which holds no scan against a fake"),
        ('start = "' + "a" * 64, 'start = "' + "a" * 63, "start"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused_by_its_key(old: str, new: str, named: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=named):
        parse_study(TEXT.replace(old, new))


@pytest.mark.parametrize(
    "kept",
    [
        "delta = 1e-12",
        "delta = 0.005\nsampling_rate = 1e-6",
        "delta = 0.005\nclip_norm = 1e-6",
        "delta = 0.005\nclip_norm = 1e6",
    ],
)
def test_the_ends_of_every_range_can_be_promised(kept: str) -> None:
    assert noised_plan(parse_study(TEXT.replace("delta = 0.005", kept))).noise_multiplier >= 0.3


def test_more_noised_steps_than_can_be_accounted_for_are_refused_and_means_take_one() -> None:
    """Of the discriminator's five for each of the generator; the spare rounds' count."""
    most = promised_text("a" * 64, promise='noised = "norms"', rounds=1, local_steps=100_000)
    assert parse_study(most).privacy.promise is not None
    with pytest.raises(ConfigError, match="1,000,010 noised steps in all, of which 1,000,000 can be accounted for"):
        parse_study(most.replace("local_steps = 100000", "local_steps = 100001"))
    assert parse_study(promised_text("a" * 64, local_steps=1_000_000)).training.local_steps == 1_000_000


def test_a_promise_that_is_left_out_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"privacy.promise: is left out; dp = 'patient-level' means nothing without"):
        parse_study(TEXT[: TEXT.index("[privacy.promise]")])


def test_a_whole_number_is_a_number_and_changes_no_digest() -> None:
    assert parse_study(TEXT.replace("epsilon = 8.0", "epsilon = 8")).digest() == parse_study(TEXT).digest()


def test_the_official_accountant_may_be_named_and_changes_no_digest() -> None:
    named = parse_study(TEXT.replace("delta = 0.005", 'delta = 0.005\naccountant = "pld"'))
    assert named.digest() == parse_study(TEXT).digest()


def test_the_usual_fakes_may_be_named_and_change_no_digest_and_others_do() -> None:
    norms = TEXT.replace("delta = 0.005", 'delta = 0.005\nnoised = "norms"')
    own, public = (parse_study(f'{norms}\nfakes = "{kind}-label-maps"') for kind in ("own", "public"))
    assert own.digest() == parse_study(norms).digest()
    assert own.digest() != public.digest()
    assert "public-label-maps" in public.canonical()


def test_an_adversarial_objective_without_a_promise_is_refused() -> None:
    with pytest.raises(ConfigError, match="is the way to privacy"):
        parse_study(tiny_text().replace("[training]", '[training]\nobjective = "adversarial"'))


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
    once = epsilon([noised_plan(parse_study(TEXT)).once()], 0.005)
    assert 0 < once < 8
    for part in (
        "the study holds.",
        "ε = 8 at δ = 0.005",
        "2 noised steps, 1 of them spare",
        "10 noised parameters",
        "r = σ√P/B̄ = ",
        "ε = 8 by itself forbids little",
        "Whatever anybody concludes from the generator, one patient's taking part makes it at most e^ε ≈ 3,000 times",
        f"Where no spare round is needed it costs less: {told_epsilon(once)} at the same δ.",
    ):
        assert part in said
    assert "many steps" not in said  # there is one
    assert run(["study", "check", str(study), "--patients", "40", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["epsilon_without_spare_rounds"] == once
    assert told["means"] in said
    found = told["feasibility"]
    assert found["outlook"] == "feasible"
    assert (found["unit"], found["sampling"], found["accountant"]) == ("patient", "Poisson", "pld")
    assert "add/remove" in found["adjacency"]
    pld, prv, rdp = (told["accountants"][name] for name in ("pld", "prv", "rdp"))
    assert pld - 0.02 <= prv < rdp
    assert pld <= 8


def test_study_check_does_not_say_that_a_study_without_its_start_holds(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.write_text(TEXT.replace(f'start = "{"a" * 64}"\n', ""))
    assert run(["study", "check", str(study)]) == 0
    said = capsys.readouterr().out
    assert "not runnable yet: training.start is missing" in said
    assert "holds" not in said
    assert run(["study", "check", str(study), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == ["training.start"]


def test_a_folder_in_a_study_s_place_is_named_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "check", "."]) == 3
    assert "'.': it is a folder" in capsys.readouterr().err


def test_study_check_says_what_is_asked_and_warns_of_a_clip_norm_that_is_mostly_noise(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for clip_norm, warned in ((1.0, True), (0.05, False)):
        noised = f'delta = 0.005\nnoised = "generator-head"\nclip_norm = {clip_norm}'
        study.write_text(TEXT.replace("delta = 0.005", noised))
        assert run(["study", "check", str(study), "--patients", "70"]) == 0
        told = capsys.readouterr().out
        assert "Asked of every patient: the generator's last layer." in told
        assert ("warning: [privacy.promise] clip_norm = 1" in told) == warned


def test_study_check_warns_of_a_clip_norm_that_no_patients_means_reach_and_counts_its_noise(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for clip_norm in (1.0, 2.7, 100.0):
        study.write_text(TEXT.replace("delta = 0.005", f"delta = 0.005\nclip_norm = {clip_norm}"))
        assert run(["study", "check", str(study), "--patients", "40", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        found[clip_norm] = told["feasibility"]["ratio"]
        warned = [one for one in told["warnings"] if "clip_norm" in one]
        assert bool(warned) == (clip_norm == 100.0)
    assert "clip_norm = 100: no patient's means are longer than 2.72" in warned[0]
    assert found[2.7] == found[1.0]
    assert found[100.0] == pytest.approx(100 / (37 / 5) ** 0.5 * found[1.0])  # two channels


def test_without_spare_rounds_there_is_one_epsilon_and_its_meaning_is_said_all_the_same(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.write_text(TEXT.replace("delta = 0.005", "delta = 0.005\nspare_rounds = 0"))
    assert run(["study", "check", str(study)]) == 0
    said = capsys.readouterr().out
    assert "one patient's taking part makes it at most e^ε ≈" in said
    assert "spare" not in said


@pytest.mark.parametrize("command", [["study", "check"], ["study", "show"], ["simulate"]], ids=" ".join)
def test_an_error_in_a_study_is_told_with_the_file_s_own_name(
    command: list[str], study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = study.rename(tmp_path / "hippocampus.toml")
    file.write_text(TEXT.replace("delta = 0.005", "delta = 7"))
    more = ["--site", f"a={tmp_path}", "--out", str(tmp_path / "run")] if command == ["simulate"] else []
    assert run([*command, str(file), *more]) == 3
    told = capsys.readouterr().err
    assert told.startswith("error: 'hippocampus.toml': ")
    assert "STUDY.toml" not in told


def test_study_check_without_patients_says_what_it_did_not_judge(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.write_text(TEXT.replace("delta = 0.005", "delta = 0.3"))
    assert run(["study", "check", str(study)]) == 0
    assert "its δ below 1/n, depends on a site's patients: neither was judged" in capsys.readouterr().out


def test_study_check_refuses_a_promise_that_leaves_pure_noise(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.write_text(TEXT.replace("delta = 0.005", 'delta = 0.005\nnoised = "all"\nsampling_rate = 0.2'))
    assert run(["study", "check", str(study), "--patients", "10"]) == 4
    told = capsys.readouterr()
    assert "pure noise" in told.err
    assert "holds" not in told.out
    assert re.search(
        r'\[privacy\.promise\] noised = "(generator-head|norms|head|means)": \d+ noised parameters instead of ',
        told.err,
    )  # choices that there are
    assert '[privacy.promise] noised = "means": ' in told.err
    assert "patients instead of 10, with the same sampling_rate and delta" in told.err
    assert "instead of" not in told.out  # said once


@pytest.mark.parametrize(
    ("noised", "named"),
    [
        ("means", "[privacy.promise] spare_rounds"),
        ("generator-head", "[training] rounds or local_steps, or [privacy.promise] spare_rounds"),
        ("all", "[training] rounds or local_steps, or [privacy.promise] discriminator_steps or spare_rounds"),
    ],
)
def test_steps_are_made_fewer_by_the_keys_that_count_them(noised: str, named: str) -> None:
    study = parse_study(TEXT.replace("delta = 0.005", f'delta = 0.005\nnoised = "{noised}"'))
    assert asked_feasibility(study, 12).steps_by == named


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
    plain = (
        "Whatever anybody concludes from the generator, one patient's taking part makes it at most e^ε ≈ 3,000 times as"
    )
    assert said.index(plain) < said.index("unit: patient")  # plain words first
    assert "With them the ε spent so far." in said
    assert "dp: none" not in said
