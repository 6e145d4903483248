"""Before a study's first round, and before it goes on: do the sites' budgets last, and is it worth beginning?"""

from __future__ import annotations

import re
from pathlib import Path

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
    assert f"privacy budget: site 'site-a': 3 rounds needed, {left} left, site 'site-b': 3 rounds needed, and" in told
    assert "the study goes on while 1 site can" in told
    assert hospitals.reserved("site-a") == 1 + left


def test_a_study_whose_quorum_cannot_hold_in_round_one_is_refused_before_any_site_has_spent(
    hospitals: Hospitals, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hospitals.simulate("first", ("site-a",), rounds=1) == 0
    assert hospitals.simulate("second", rounds=2, quorum=2) == 4
    told = capsys.readouterr().err
    assert "(site 'site-a': 2 rounds needed, 0 left, site 'site-b': 2 rounds needed, and left)" in told
    assert "at 2 sites at least: without them no round counts" in told
    assert (hospitals.reserved("site-a"), hospitals.reserved("site-b")) == (1, 0)
    assert not (hospitals.root / "run-second").exists()


def test_a_study_that_every_site_can_only_begin_says_how_far_it_will_come(
    hospitals: Hospitals, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hospitals.simulate("first", rounds=1, spare=1) == 0
    assert hospitals.simulate("second", rounds=3, quorum=2) == 4
    told = capsys.readouterr().err
    left = hospitals.reserved("site-a") - 1
    assert 0 < left < 3
    assert f"a round needs 2 sites, so many last for {left} more round" in told
    assert "site-a: the site's privacy budget is spent; site-b: the site's privacy budget is spent" in told
    for site in SITES:
        assert re.search(rf"site '{site}': [0-7] of the 8 noised steps asked for at a time", told)


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
    assert outlook(folder, 1) == Outlook("noised step", 1, 0)


def test_what_the_site_itself_allows_is_what_is_left_also_of_a_ledger_that_nobody_used(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, promise="spare_rounds = 0")
    with (folder.root / "site.toml").open("a") as file:
        file.write(f"budget = {EPSILON / 2}\n")
    assert outlook(folder) == Outlook("noised step", 1, 0)


def test_looking_writes_nothing(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, promise=GRADIENTS.format(spare=0))
    before = sorted(path.name for path in folder.root.rglob("*"))
    outlook(folder)
    assert sorted(path.name for path in folder.root.rglob("*")) == before


def rounds(needed: int, *left: int) -> dict[str, Outlook]:
    return {f"site-{number}": Outlook("round", needed, left_here) for number, left_here in enumerate(left)}


def test_nothing_is_said_where_every_budget_lasts() -> None:
    assert told_outlooks(rounds(3, 3, 3), 2) == ""


def test_how_long_the_quorum_holds_is_said_where_it_does_not_hold_to_the_end() -> None:
    told = told_outlooks(rounds(3, 3, 1, 0), 2)
    assert "a round needs 2 sites, so many last for 1 more round, and the study ends there" in told
    assert "goes on while 2 sites can" in told_outlooks(rounds(3, 3, 3, 0), 2)


def test_too_few_sites_for_the_next_round_is_a_budget_that_is_spent() -> None:
    with pytest.raises(BudgetSpent, match="site 'site-1': 3 rounds needed, 0 left") as refused:
        told_outlooks(rounds(3, 3, 0), 2)
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

    assert "goes on while 2 sites can" in ask(federation)
    with pytest.raises(BudgetSpent, match="site 'c': 2 rounds needed, 0 left") as refused:
        ask(federation + "secure_aggregation = { threshold = 3, clip = 20.0 }\n")
    assert "at 3 sites at least" in refused.value.expected
