"""Before a study's first round, and before it goes on: do the sites' budgets last, and is it worth beginning?"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from promised import DELTA, EPSILON, one_round, promised_site, promised_text, write_start
from tiny_cohorts import write_tiny_cohort

from fedphantom.cli import run
from fedphantom.client.budget_outlook import budget_outlook
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.errors import BudgetSpent, PolicyRefused
from fedphantom.common.journal import read_journal
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import parse_study
from fedphantom.privacy.dp.accounting import Mechanism, most_steps
from fedphantom.privacy.dp.outlook import Outlook, told_outlooks
from fedphantom.privacy.dp.plan import noised_plan
from fedphantom.server.budget_check import SeeBudget, check_budgets
from fedphantom.server.run_folder import RunFolder
from fedphantom.server.site_cohorts import OwnCohort

GRADIENTS = 'noised = "norms"\ndiscriminator_steps = 2\nspare_rounds = {spare}'
ROLES = "test = 0.1\ncontrol = 0.0\naudit = 0.0"
SITES = ("site-a", "site-b")


class Hospitals:
    """Two sites' cohorts on one machine, whose ledgers outlive the runs."""

    def __init__(self, root: Path) -> None:
        self.root, self.start, self.kept = root, root / "start.safetensors", root / "kept"
        self.sha256 = write_start(self.start)
        for number, name in enumerate(SITES):
            write_tiny_cohort(root / name, 10, seed=number, prefix=name[-1])

    def simulate(
        self, name: str, sites: tuple[str, ...] = SITES, *, rounds: int, spare: int = 0, quorum: int = 1
    ) -> int:
        study, seed = self.study(name), sum(map(ord, name))
        text = promised_text(self.sha256, promise=GRADIENTS.format(spare=spare), rounds=rounds, roles=ROLES)
        study.write_text(text.replace("seed = 5", f"seed = {seed}") + f"[federation]\nquorum = {quorum}\n")
        given = [part for site in sites for part in ("--site", f"{site}={self.root / site}")]
        kept = ["--ledgers", str(self.kept), "--start", str(self.start)]
        return run(["simulate", str(study), *given, "--out", str(self.root / f"run-{name}"), *kept])

    def study(self, name: str) -> Path:
        return self.root / f"{name}.toml"

    def steps(self, name: str) -> Mechanism:
        """All of a study's noised steps."""
        return noised_plan(parse_study(self.study(name).read_text())).whole()

    def reserved(self, site: str) -> int:
        ledger = self.kept / site / "ledger.jsonl"
        return sum(entry.event == "reserved" for entry in read_journal(ledger)) if ledger.exists() else 0


@pytest.fixture
def hospitals(tmp_path: Path) -> Hospitals:
    return Hospitals(tmp_path)


def test_what_a_used_ledger_still_allows_is_said_before_a_study_that_others_can_go_on_with(
    hospitals: Hospitals, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hospitals.simulate("first", ("site-a",), rounds=1, spare=1) == 0
    assert "privacy budget:" not in capsys.readouterr().err
    assert hospitals.simulate("second", rounds=3) == 0
    told = capsys.readouterr().err
    whole, spent = hospitals.steps("second"), hospitals.steps("first")
    before = Mechanism(spent.sampling_rate, spent.noise_multiplier, spent.steps // 2)  # the spare round was not taken
    left = most_steps(EPSILON, DELTA, whole, [before]) // (whole.steps // 3)
    assert 0 < left < 3
    assert f"privacy budget: site 'site-a': 3 rounds needed, {left} left (ε = " in told
    assert f"of ε = {EPSILON:g} at δ = {DELTA:g} is spent over all runs of these patients)" in told
    assert "is left out, and the study goes on without it" in told
    assert "site 'site-b'" not in told
    assert hospitals.reserved("site-a") == 1 + left


@pytest.mark.parametrize("rounds", [2, 3], ids=["none left", "too few left"])
def test_a_study_that_would_break_off_is_refused_before_any_site_has_spent(
    hospitals: Hospitals, capsys: pytest.CaptureFixture[str], rounds: int
) -> None:
    assert hospitals.simulate("first", rounds=1, spare=3 - rounds) == 0
    spent = {site: hospitals.reserved(site) for site in SITES}
    capsys.readouterr()
    assert hospitals.simulate("second", rounds=rounds, quorum=2) == 4
    told = capsys.readouterr().err
    assert "the privacy budget lasts to the study's end at 0 of 2 sites (site 'site-a': " in told
    assert "2 sites at least whose budget lasts" in told
    assert "Nothing was spent now." in told
    assert {site: hospitals.reserved(site) for site in SITES} == spent
    assert not (hospitals.root / "run-second").exists()


def test_a_ledger_that_cannot_be_trusted_is_found_before_any_site_has_spent(
    hospitals: Hospitals, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hospitals.simulate("first", ("site-b",), rounds=1, spare=1) == 0
    (hospitals.kept / "site-b" / "ledger.secret").unlink()
    assert hospitals.simulate("second", rounds=2) == 5
    assert "site 'site-b': the privacy ledger: without the secret 'ledger.secret'" in capsys.readouterr().err
    assert hospitals.reserved("site-a") == 0


@pytest.mark.parametrize("place", ["/proc/nowhere", "a file"])
def test_a_place_where_no_ledger_can_be_kept_is_refused_at_once_in_a_sentence(
    hospitals: Hospitals, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (hospitals.root / "a file").touch()
    hospitals.kept = hospitals.root / place
    assert hospitals.simulate("first", rounds=1) in (1, 3)
    told = capsys.readouterr().err
    assert "error: --ledgers: " in told
    assert "looking through" not in told
    assert "Traceback" not in told
    assert not (hospitals.root / "run-first").exists()


def outlook(folder: SiteFolder, rounds_done: int = 0) -> Outlook:
    return budget_outlook(folder.root, folder.name, read_cohort(folder.cohort), folder.study(), rounds_done)


def test_a_round_that_was_paid_for_and_not_yet_sent_counts_as_left(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, promise=GRADIENTS.format(spare=0))
    assert outlook(folder) == Outlook("round", 2, 2)
    one_round(folder)
    assert outlook(folder) == Outlook("round", 2, 2)  # the coordinator does not have it yet
    assert outlook(folder, 1) == Outlook("round", 1, 1)
    one_round(folder, 2)
    assert outlook(folder, 1) == Outlook("round", 1, 1)


def test_means_are_one_noised_step_whatever_rounds_there_are(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, promise="spare_rounds = 0")
    one_round(folder)
    assert outlook(folder, 1) == Outlook("noised step", 1, 1)
    (folder.state / "noised-means.safetensors").unlink()
    assert (found := outlook(folder, 1)).short
    assert found.limit.endswith("is spent over all runs of these patients")


def test_what_the_site_itself_allows_is_what_is_left_also_of_a_ledger_that_nobody_used(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, promise="spare_rounds = 0")
    with (folder.root / "site.toml").open("a") as file:
        file.write(f"budget = {EPSILON / 2}\n")
    allowed = f"ε = {EPSILON / 2:g} at δ = {DELTA:g} is allowed here, and none of it spent"
    assert outlook(folder) == Outlook("noised step", 1, 0, allowed)


@pytest.mark.parametrize("noised", ["spare_rounds = 0", GRADIENTS.format(spare=0)], ids=["means", "norms"])
def test_patients_who_are_others_than_those_who_paid_are_found_before_a_run_goes_on(
    tmp_path: Path, noised: str
) -> None:
    folder = promised_site(tmp_path, promise=noised)
    one_round(folder)
    for path in folder.cohort.rglob("*dseg.nii.gz"):
        image = nib.load(path)
        labels = np.asarray(image.dataobj, np.uint8)
        labels[8, 8, 8] = 1 - min(labels[8, 8, 8], 1)
        nib.save(nib.Nifti1Image(labels, image.affine), path)
    with pytest.raises(PolicyRefused, match="changed since"):
        outlook(folder, 1)


def test_looking_writes_nothing(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, promise=GRADIENTS.format(spare=0))
    before = sorted(path.name for path in folder.root.rglob("*"))
    outlook(folder)
    assert sorted(path.name for path in folder.root.rglob("*")) == before


def rounds(needed: int, *left: int) -> dict[str, Outlook]:
    return {f"site-{number}": Outlook("round", needed, left_here) for number, left_here in enumerate(left)}


def test_nothing_is_said_where_every_budget_lasts() -> None:
    assert told_outlooks(rounds(3, 3, 3), 2) == ""


def test_only_sites_whose_budget_is_short_are_named() -> None:
    assert told_outlooks(rounds(3, 3, 1, 3), 2) == (
        "privacy budget: site 'site-1': 3 rounds needed, 1 left."
        " A site whose budget is spent is left out, and the study goes on without it"
    )


@pytest.mark.parametrize("left", [0, 2])
def test_too_few_sites_that_last_to_the_end_are_a_budget_that_is_spent(left: int) -> None:
    with pytest.raises(BudgetSpent, match=f"at 1 of 2 sites \\(site 'site-1': 3 rounds needed, {left} left") as refused:
        told_outlooks(rounds(3, 3, left), 2)
    assert refused.value.exit_code == PolicyRefused.exit_code == 4


def test_a_masked_sum_needs_as_many_sites_as_its_threshold_whatever_the_quorum(tmp_path: Path) -> None:
    federation = "[federation]\nquorum = 2\n"
    left, cohort = {"a": 2, "b": 2, "c": 0}, write_tiny_cohort(tmp_path / "cohort", 4)

    def ask(federation: str) -> str:
        said: list[str] = []
        study = parse_study(promised_text("0" * 64, promise=GRADIENTS.format(spare=0)) + federation)
        own = dict.fromkeys(left, OwnCohort(cohort, read_cohort(cohort), shared=False))
        see: SeeBudget = lambda folder, name, *rest: Outlook("round", 2, left[name])  # noqa: E731
        check_budgets(see, RunFolder(tmp_path), own, study, 0, said.append)
        return "".join(said)

    assert "the study goes on without it" in ask(federation)
    with pytest.raises(BudgetSpent, match="site 'c': 2 rounds needed, 0 left") as refused:
        ask(federation + "secure_aggregation = { threshold = 3, clip = 20.0 }\n")
    assert refused.value.expected.startswith("3 sites at least")
