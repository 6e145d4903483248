"""A whole study under a promise: what its generator says, a second run on the same patients, what is refused first."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from promised import DELTA, EPSILON, promised_text, write_start
from tiny_cohorts import tiny_text, write_tiny_cohort

from fedphantom.cli import run
from fedphantom.common.gan.weights import load_weights, save_weights
from fedphantom.common.interrupt import said_of_interrupt
from fedphantom.common.study import parse_study
from fedphantom.privacy.dp.accounting import epsilon
from fedphantom.privacy.dp.plan import noised_plan
from fedphantom.server.commands import simulation_text


@pytest.fixture(scope="module")
def promised_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("promised")
    start = write_start(root / "start.safetensors")
    (root / "study.toml").write_text(promised_text(start, roles="test = 0.1\ncontrol = 0.0\naudit = 0.0"))
    sites = []
    for number, name in enumerate(("site-a", "site-b")):
        cohort = write_tiny_cohort(root / name, 10, seed=number, prefix=name[-1])
        sites += ["--site", f"{name}={cohort}"]
    given = ["simulate", str(root / "study.toml"), *sites, "--out", str(root / "run"), "--ledgers", str(root / "kept")]
    assert run([*given, "--start", str(root / "start.safetensors")]) == 0
    return root


def test_the_generator_says_the_whole_promise_and_what_was_spent(promised_run: Path) -> None:
    summary = json.loads((promised_run / "run" / "summary.json").read_text())
    said = json.loads(load_weights(promised_run / "run" / "generator.safetensors")[1]["dp"])
    assert said == summary["dp_statement"]
    assert said.keys() == {
        "epsilon", "delta", "unit", "adjacency", "sampling", "accountant", "sampling_rate", "noise_multiplier",
        "clip_norm", "steps", "noised", "across_sites",
    }  # fmt: skip
    assert said["epsilon"] == max(summary["epsilon_by_site"].values()) <= EPSILON
    plan = noised_plan(parse_study((promised_run / "study.toml").read_text()))
    assert said["steps"] == 1  # the spare one was not needed
    assert said["epsilon"] == pytest.approx(epsilon([plan.once()], DELTA))
    assert (said["unit"], said["delta"], said["accountant"]) == ("patient", DELTA, "pld")


def test_scans_made_by_the_generator_come_with_its_promise_in_words_and_for_programs(
    promised_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = write_tiny_cohort(tmp_path / "public", 4, seed=9)
    weights = promised_run / "run" / "generator.safetensors"
    given = ["generate", str(weights), "--sample", "2", "--public", str(public), "--device", "cpu"]
    assert run([*given, str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    summary = json.loads((promised_run / "run" / "summary.json").read_text())
    assert (
        simulation_text(summary | {"generator": None, "not_drawn": 0})
        .splitlines()[-1]
        .startswith(told.splitlines()[-1])
    )
    assert told.splitlines()[-1].startswith("dp: patient-level, ε = ")
    assert f"at δ = {DELTA:g}; unit: patient; " in told
    assert run([*given, str(tmp_path / "again"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["dp"], facts["dp_statement"]) == ("patient-level", summary["dp_statement"])


def test_a_promise_that_the_generator_s_own_study_does_not_make_is_refused_before_painting(
    promised_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters, facts = load_weights(promised_run / "run" / "generator.safetensors")
    edited = json.loads(facts["dp"]) | {"epsilon": 0.5}
    save_weights(tmp_path / "generator.safetensors", parameters, facts | {"dp": json.dumps(edited)})
    given = ["generate", str(tmp_path / "generator.safetensors"), str(tmp_path / "out"), "--sample", "2"]
    assert run([*given, "--device", "cpu"]) == 3
    assert (
        "GENERATOR: a weights file whose promise is not the one of the study in its header" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_a_second_run_on_the_same_patients_finds_their_budget_spent(
    promised_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = [part for name in ("site-a", "site-b") for part in ("--site", f"{name}={promised_run / name}")]
    study = promised_run / "again.toml"
    study.write_text((promised_run / "study.toml").read_text().replace("seed = 5", "seed = 6"))
    given = ["simulate", str(study), *sites, "--ledgers", str(promised_run / "kept")]
    start = ["--start", str(promised_run / "start.safetensors")]
    first = run([*given, "--out", str(promised_run / "again"), *start])  # the spare step
    study.write_text(study.read_text().replace("seed = 6", "seed = 7"))
    assert (first, run([*given, "--out", str(promised_run / "third"), *start])) == (0, 4)
    told = capsys.readouterr().err
    for site in ("site-a", "site-b"):
        assert f"site '{site}': 1 noised step needed, 0 left" in told
    assert not (promised_run / "third").exists()


def test_the_study_goes_on_without_a_site_whose_budget_is_spent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = write_start(tmp_path / "start.safetensors")
    text = promised_text(start, promise="spare_rounds = 0", roles="test = 0.1\ncontrol = 0.0\naudit = 0.0")
    cohorts = {n: write_tiny_cohort(tmp_path / n, 10, seed=i, prefix=n[-1]) for i, n in enumerate(("site-a", "site-b"))}
    common = ["--ledgers", str(tmp_path / "kept"), "--start", str(tmp_path / "start.safetensors"), "--json"]

    def simulate(seed: int, sites: tuple[str, ...]) -> int:
        study = tmp_path / f"{seed}.toml"
        study.write_text(text.replace("seed = 5", f"seed = {seed}") + "[federation]\nquorum = 1\n")
        given = [part for name in sites for part in ("--site", f"{name}={cohorts[name]}")]
        return run(["simulate", str(study), *given, "--out", str(tmp_path / f"run-{seed}"), *common])

    assert simulate(5, ("site-a",)) == 0
    assert simulate(6, ("site-a", "site-b")) == 0
    capsys.readouterr()
    summary = json.loads((tmp_path / "run-6" / "summary.json").read_text())
    for record in summary["rounds"]:
        assert record["sites"] == ["site-b"]
        assert record["left_out"] == {"site-a": "the site's privacy budget is spent"}
    assert summary["epsilon_by_site"].keys() == {"site-b"}


def test_a_delta_too_large_for_a_site_is_refused_before_anything_is_made(
    promised_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, out = promised_run / "large.toml", promised_run / "too-large"
    study.write_text((promised_run / "study.toml").read_text().replace(f"delta = {DELTA}", "delta = 0.3"))
    sites = ["--site", f"site-a={promised_run / 'site-a'}", "--site", f"site-b={promised_run / 'site-b'}"]
    start = ["--start", str(promised_run / "start.safetensors")]
    assert run(["simulate", str(study), *sites, "--out", str(out), *start]) == 3
    assert "site 'site-a': δ = 0.3 for 8 patients" in capsys.readouterr().err
    assert not out.exists()


def test_a_start_is_asked_for_before_anything_is_made(promised_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = promised_run / "without"
    sites = ["--site", f"site-a={promised_run / 'site-a'}", "--site", f"site-b={promised_run / 'site-b'}"]
    assert run(["simulate", str(promised_run / "study.toml"), *sites, "--out", str(out)]) == 3
    said = capsys.readouterr().err
    assert "--start" in said
    assert "privacy ledgers lie in the run's folder" not in said  # no run begins
    assert not out.exists()


def test_a_run_with_ledgers_of_its_own_says_so_once_what_its_epsilon_means_and_what_an_interrupt_costs(
    promised_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = [part for name in ("site-a", "site-b") for part in ("--site", f"{name}={promised_run / name}")]
    given = ["simulate", str(promised_run / "study.toml"), *sites, "--out", str(tmp_path / "run")]
    assert run([*given, "--start", str(promised_run / "start.safetensors")]) == 0
    said = capsys.readouterr()
    assert said.err.count("privacy ledgers lie in the run's folder") == 1
    plain = "Whatever anybody concludes from the generator, one patient's taking part makes it at most e^ε ≈"
    assert said.out.index(plain) < said.out.index("dp: patient-level, ε = ")
    interrupted = said_of_interrupt()
    assert "by the sites' ledgers, site 'site-a': 1 counted; site 'site-b': 1 counted. What is left" in interrupted
    assert interrupted.endswith(f": fedphantom budget show {tmp_path}/run/sites/NAME")
    assert run([*given, "--start", str(promised_run / "start.safetensors")]) == 0
    assert "privacy ledgers lie" not in capsys.readouterr().err


def test_a_ledger_that_cannot_be_added_to_is_named_with_its_site_before_anything_is_made(
    promised_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, ledger = os.open, promised_run / "kept" / "site-b" / "ledger.jsonl"

    def forbidden(path: Any, flags: int, *more: Any, **by_name: Any) -> int:
        if Path(path) == ledger and flags & (os.O_RDWR | os.O_WRONLY):  # permissions do not bind whoever is root
            raise PermissionError(errno.EACCES, "permission denied", str(path))
        return opened(path, flags, *more, **by_name)

    monkeypatch.setattr(os, "open", forbidden)
    sites = [part for name in ("site-a", "site-b") for part in ("--site", f"{name}={promised_run / name}")]
    given = ["simulate", str(promised_run / "study.toml"), *sites, "--ledgers", str(promised_run / "kept")]
    start = ["--start", str(promised_run / "start.safetensors")]
    assert run([*given, "--out", str(tmp_path / "run"), *start]) == 1
    assert "--ledgers: the privacy ledger of site 'site-b': the file may not be written" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


KEYS = '[federation]\napproval_keys = ["{}", "{}"]\n'.format("a" * 64, "b" * 64)


@pytest.mark.parametrize(
    ("keys", "warned", "closing"),
    [
        ("", True, "It cannot leave the study, which names no [federation] approval_keys."),
        (KEYS, False, "It leaves the study only after an audit."),
    ],
    ids=["no key named", "a key for each site"],
)
def test_what_study_check_warns_of_is_said_before_a_budget_is_spent_and_what_can_never_leave_is_called_so(
    keys: str, warned: bool, closing: str, promised_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.toml").write_text((promised_run / "study.toml").read_text() + keys)
    sites = [part for name in ("site-a", "site-b") for part in ("--site", f"{name}={promised_run / name}")]
    given = ["simulate", str(tmp_path / "study.toml"), *sites, "--out", str(tmp_path / "run")]
    start = ["--start", str(promised_run / "start.safetensors")]
    assert run([*given, *start]) == 0
    said = capsys.readouterr()
    assert ("warning: no [federation] approval_keys: an average of several sites is never" in said.err) == warned
    assert said.out.rstrip().endswith(closing)
    assert run([*given, *start]) == 0
    assert "warning" not in capsys.readouterr().err  # the round that it warned of is behind it


def test_of_a_network_from_images_to_labels_no_audit_is_promised() -> None:
    told = {"rounds": [], "sites": ["a"], "not_drawn": 0, "generator": None, "approval_keys": []}
    for sharing in ("weights", "ensemble"):
        text = simulation_text(told | {"sharing": sharing, "maps": "images-to-labels"})
        assert text.endswith("a network from images to labels is never released today.")


def test_a_folder_for_ledgers_is_refused_where_nothing_is_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain.toml").write_text(tiny_text())
    cohort = write_tiny_cohort(tmp_path / "a", 4)
    given = ["simulate", str(tmp_path / "plain.toml"), "--site", f"a={cohort}", "--out", str(tmp_path / "run")]
    assert run([*given, "--ledgers", str(tmp_path / "kept")]) == 3
    assert "--ledgers: a folder for privacy ledgers, and a study with dp = 'none'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
