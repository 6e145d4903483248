"""One budget for the life of a cohort (PRIVACY §2): what is spent is never forgotten."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ledgered_site import (
    BUDGET,
    DELTA,
    OTHER_RUN,
    RUN,
    SIGMA,
    UNLIMITED,
    cost,
    counted,
    fit,
    ledger_in,
    people,
    run_named,
    scan,
    steps,
)

from fedphantom.common.errors import BudgetSpent, PolicyRefused, VerificationFailed
from fedphantom.common.journal import Journal, read_journal
from fedphantom.privacy.dp.accounting import Mechanism, epsilon
from fedphantom.privacy.dp.ledger import Ledger, NoisedRun
from fedphantom.privacy.dp.limits import Budget
from fedphantom.privacy.dp.persons import Held
from fedphantom.privacy.dp.spending import PublicConstants

NEWER = ("study", "patients", "expected_batch", "clip_norm")
"""What earlier versions did not write into a reservation."""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return ledger_in(tmp_path)


def test_a_reservation_counts_whole_until_the_process_that_made_it_says_how_much_was_done(ledger: Ledger) -> None:
    reserved = ledger.reserve(RUN, people("abc"), steps(50), BUDGET)
    assert counted(ledger) == 50
    assert (reserved.epsilon, reserved.delta) == (cost(50), DELTA)
    reserved.commit(20)
    assert counted(ledger) == 20
    assert ledger.reserve(RUN, people("abc"), steps(10), BUDGET).epsilon == cost(30)
    assert counted(ledger) == 30


def test_a_reservation_of_which_no_step_was_taken_costs_nothing(ledger: Ledger) -> None:
    ledger.reserve(RUN, people("abc"), steps(50), BUDGET).commit(0)
    assert counted(ledger) == 0


def test_what_exceeds_the_budget_is_refused_and_what_is_left_is_said(ledger: Ledger, tmp_path: Path) -> None:
    whole = fit(3.0)
    ledger.reserve(RUN, people("abc"), steps(whole - 7), BUDGET).commit(whole - 7)
    with pytest.raises(BudgetSpent, match=r"of ε = 3 at δ = 0.005 is spent, per patient, and 8 more steps") as caught:
        ledger.reserve(RUN, people("abc"), steps(8), BUDGET)
    assert caught.value.exit_code == 4
    assert caught.value.remedy.startswith("7 such steps are left")
    assert counted(ledger) == whole - 7
    assert read_journal(tmp_path / "site/journal.jsonl")[-1].facts["left"] == 7
    ledger.reserve(RUN, people("abc"), steps(6), BUDGET)
    with pytest.raises(BudgetSpent, match=r"and 2 more steps .* 1 such step is left;"):
        ledger.reserve(RUN, people("abc"), steps(2), BUDGET)
    ledger.reserve(RUN, people("abc"), steps(1), BUDGET)
    with pytest.raises(
        BudgetSpent, match=r"and 1 more step .* No such step is left: the study can go on without this site"
    ):
        ledger.reserve(RUN, people("abc"), steps(1), BUDGET)


def test_a_reservation_beyond_every_epsilon_is_refused_in_words(ledger: Ledger) -> None:
    with pytest.raises(BudgetSpent, match="would make it ε beyond 100"):
        ledger.reserve(RUN, people("abc"), Mechanism(1.0, 0.01, 1), BUDGET)


def test_the_reservation_is_on_the_disk_and_in_the_journal_before_it_is_handed_out(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    real = os.fsync

    def spy(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    line = ledger.reserve(RUN, people("abc"), steps(5), BUDGET).line
    assert str(ledger.path) in flushed
    written = read_journal(ledger.path)[line - 1]
    noted = read_journal(tmp_path / "site/journal.jsonl")[-1]
    assert written.event == "reserved"
    assert (noted.event, noted.facts["ledger_sha256"]) == ("budget-reserved", written.sha256)


def test_a_line_says_everything_without_which_an_epsilon_means_nothing(ledger: Ledger) -> None:
    line = ledger.reserve(RUN, people("abc"), Mechanism(0.5, SIGMA, 5), BUDGET).line
    facts = read_journal(ledger.path)[line - 1].facts
    assert facts["unit"] == "patient"
    assert "add/remove" in str(facts["adjacency"])
    assert (facts["sampling"], facts["accountant"]) == ("Poisson", "pld")
    assert (facts["sampling_rate"], facts["noise_multiplier"], facts["steps"]) == (0.5, SIGMA, 5)
    assert (facts["delta"], facts["budget"], facts["run"]) == (DELTA, 3.0, RUN.name)
    assert len(str(facts["code"])) == 64


def test_no_patient_and_no_scan_can_be_read_or_tried_out_in_the_ledger_or_the_journal(
    ledger: Ledger, tmp_path: Path
) -> None:
    cohort = people("abc")
    ledger.reserve(RUN, cohort, steps(5), BUDGET).commit(5)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for name, held in cohort.items():
        for text in (name, scan(name), *held.channels):
            assert text.encode() not in written
    other = ledger_in(tmp_path / "elsewhere")  # with a secret of its own
    other.reserve(RUN, cohort, steps(5), BUDGET)
    here, there = (set(re.findall("[0-9a-f]{64}", str(read_journal(o.path)[1].facts))) for o in (ledger, other))
    assert len(here) == len(there) == 7  # the cohort, and two marks a patient
    assert here.isdisjoint(there)
    assert (tmp_path / "ledger/ledger.secret").stat().st_mode & 0o077 == 0


# Patients in several runs.


def test_disjoint_patients_have_budgets_of_their_own(ledger: Ledger) -> None:
    whole = fit(3.0)
    ledger.reserve(RUN, people("abc"), steps(whole), BUDGET)
    ledger.reserve(OTHER_RUN, people("def"), steps(whole), BUDGET)
    assert counted(ledger) == whole


def test_one_patient_in_common_is_enough_to_share_a_budget(ledger: Ledger) -> None:
    whole = fit(3.0)
    ledger.reserve(RUN, people("abc"), steps(whole), BUDGET)
    with pytest.raises(BudgetSpent):
        ledger.reserve(OTHER_RUN, people("cde"), steps(1), BUDGET)
    ledger.reserve(OTHER_RUN, people("de"), steps(whole), BUDGET)


def test_a_cohort_split_anew_does_not_reset_the_budget(ledger: Ledger) -> None:
    third = fit(3.0) // 3
    ledger.reserve(RUN, people("abcd"), steps(third), BUDGET)
    ledger.reserve(OTHER_RUN, people("ab"), steps(third), BUDGET)
    ledger.reserve(run_named("c" * 64), people("cd"), steps(third), BUDGET)
    assert counted(ledger) == 2 * third  # the dearest patient's, not everybody's sum
    with pytest.raises(BudgetSpent, match=f"{third} such steps are left|{third + 1} such|{third + 2} such"):
        ledger.reserve(run_named("d" * 64), people("bc"), steps(2 * third), BUDGET)


def test_renamed_patients_are_known_by_their_scans(ledger: Ledger) -> None:
    whole = fit(3.0)
    ledger.reserve(RUN, people("abc"), steps(whole), BUDGET)
    with pytest.raises(BudgetSpent):
        ledger.reserve(OTHER_RUN, people("ABC"), steps(1), BUDGET)


def test_new_scans_of_known_patients_do_not_reset_the_budget(ledger: Ledger) -> None:
    whole = fit(3.0)
    ledger.reserve(RUN, people("abc"), steps(whole), BUDGET)
    again = {name: Held([scan(f"another of {name}")]) for name in people("abc")}
    with pytest.raises(BudgetSpent):
        ledger.reserve(OTHER_RUN, again, steps(1), BUDGET)


def test_a_chain_of_renamings_does_not_reset_the_budget(ledger: Ledger) -> None:
    half = fit(3.0) // 2
    ledger.reserve(RUN, {"old": Held([scan("1")])}, steps(half), BUDGET)
    ledger.reserve(OTHER_RUN, {"new": Held([scan("1"), scan("2")])}, steps(half), BUDGET)
    with pytest.raises(BudgetSpent):
        ledger.reserve(run_named("c" * 64), {"newest": Held([scan("2")])}, steps(2), BUDGET)


@pytest.mark.parametrize(
    "second",
    [
        {"x": Held([scan("a"), scan("b")])},
        {"patient-a": Held([scan("b")]), "patient-b": Held([scan("a")])},
        {"x": Held([scan("q")]), "y": Held([scan("q")])},
    ],
    ids=["two who are one now", "two who exchanged names", "one under two names"],
)
def test_two_patients_who_turn_out_to_be_one_person_are_refused(ledger: Ledger, second: dict[str, Held]) -> None:
    ledger.reserve(RUN, people("ab"), steps(1), BUDGET)
    with pytest.raises(PolicyRefused, match="who are one person") as caught:
        ledger.reserve(OTHER_RUN, second, steps(1), BUDGET)
    assert caught.value.exit_code == 4
    assert counted(ledger) == 1


@pytest.mark.parametrize(
    "changed",
    [people("ab"), people("abcd"), people("abC"), {**people("ab"), "patient-c": Held([scan("c"), scan("a second")])}],
    ids=["one fewer", "one more", "one renamed", "one more scan"],
)
def test_a_cohort_that_changed_since_the_run_s_reservation_is_refused(ledger: Ledger, changed: dict[str, Held]) -> None:
    ledger.reserve(RUN, people("abc"), steps(5), BUDGET).commit(5)
    with pytest.raises(PolicyRefused, match="changed since the run's earlier reservation") as caught:
        ledger.reserve(RUN, changed, steps(5), BUDGET)
    assert caught.value.exit_code == 4
    assert ledger.reserve(OTHER_RUN, changed, steps(5), BUDGET).epsilon == cost(10)


def test_everything_is_composed_at_the_strictest_delta_that_the_patients_were_promised(ledger: Ledger) -> None:
    strict = Budget(3.0, DELTA / 50)
    ledger.reserve(RUN, people("abc"), steps(20), strict)
    assert ledger.reserve(OTHER_RUN, people("cd"), steps(20), BUDGET).epsilon == cost(40, DELTA / 50)
    assert ledger.reserve(run_named("c" * 64), people("ef"), steps(20), BUDGET).epsilon == cost(20)


def test_steps_of_other_kinds_are_composed_too(ledger: Ledger) -> None:
    ledger.reserve(RUN, people("abc"), steps(50), UNLIMITED)
    other = Mechanism(0.5, SIGMA / 2, 30)
    both = ledger.reserve(OTHER_RUN, people("abc"), other, UNLIMITED).epsilon
    alone = epsilon([other], DELTA)
    assert max(alone, cost(50)) < both < alone + cost(50)


# Who commits.


def test_a_reservation_is_committed_once(ledger: Ledger) -> None:
    reserved = ledger.reserve(RUN, people("abc"), steps(50), BUDGET)
    reserved.commit(40)
    with pytest.raises(PolicyRefused, match="no open reservation"):
        reserved.commit(0)
    assert counted(ledger) == 40


def test_steps_beyond_the_reservation_are_counted_and_told(ledger: Ledger) -> None:
    reserved = ledger.reserve(RUN, people("abc"), steps(10), BUDGET)
    with pytest.raises(BudgetSpent, match="12 steps taken of 10 reserved"):
        reserved.commit(12)
    assert counted(ledger) == 12


def test_a_negative_number_of_steps_is_not_committed(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="negative"):
        ledger.reserve(RUN, people("abc"), steps(10), BUDGET).commit(-1)
    assert counted(ledger) == 10


def test_another_process_cannot_give_steps_back(ledger: Ledger) -> None:
    reserved = ledger.reserve(RUN, people("abc"), steps(10), BUDGET)
    child = os.fork()
    if child == 0:
        try:
            reserved.commit(0)
        except PolicyRefused:
            os._exit(4)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert counted(ledger) == 10


def test_a_commit_written_by_someone_without_the_proof_breaks_the_ledger_instead_of_giving_back(ledger: Ledger) -> None:
    line = ledger.reserve(RUN, people("abc"), steps(10), BUDGET).line
    Journal(ledger.path).append("committed", reservation=line, steps_done=0, claim="0" * 64)
    with pytest.raises(VerificationFailed, match="line 4 is not a line of a privacy ledger"):
        ledger.spending()


# Whose budget binds


def test_a_later_study_with_a_looser_budget_does_not_loosen_the_first(ledger: Ledger) -> None:
    ledger.reserve(RUN, people("abc"), steps(fit(3.0)), Budget(3.0, DELTA))
    with pytest.raises(BudgetSpent, match="of ε = 3 at"):
        ledger.reserve(OTHER_RUN, people("abc"), steps(5), Budget(90.0, DELTA))


def test_a_stricter_study_is_held_to_its_own_budget(ledger: Ledger) -> None:
    ledger.reserve(RUN, people("abc"), steps(fit(3.0)), Budget(8.0, DELTA))
    with pytest.raises(BudgetSpent, match="of ε = 2 at"):
        ledger.reserve(OTHER_RUN, people("abc"), steps(5), Budget(2.0, DELTA))


def test_what_the_site_itself_allows_binds_whatever_studies_ask(ledger: Ledger) -> None:
    ledger.reserve(RUN, people("abc"), steps(fit(3.0)), Budget(3.0, DELTA, site=9.0))
    ledger.reserve(OTHER_RUN, people("abc"), steps(5), Budget(3.0, DELTA, site=9.0))
    with pytest.raises(BudgetSpent, match="of ε = 9 at"):
        ledger.reserve(OTHER_RUN, people("abc"), steps(fit(9.0)), Budget(90.0, DELTA, site=9.0))


def test_a_study_never_spends_more_than_it_promises_whatever_its_site_allows(ledger: Ledger) -> None:
    promised, allowed = Budget(3.0, DELTA, site=9.0), fit(3.0)
    ledger.reserve(OTHER_RUN, people("abc"), steps(fit(1.0)), Budget(1.0, DELTA, site=9.0))
    ledger.reserve(RUN, people("abc"), steps(allowed - 2), promised)
    with pytest.raises(BudgetSpent, match=r"of ε = 3 at δ = 0\.005 is spent") as caught:
        ledger.reserve(RUN, people("abc"), steps(3), promised)
    assert caught.value.expected == "ε = 3 at most, in this study, as it promises them"
    assert caught.value.remedy.startswith("2 such steps are left")
    ledger.reserve(RUN, people("abc"), steps(2), promised)


def test_in_another_run_folder_a_study_spends_on_the_same_promise(ledger: Ledger) -> None:
    promised, again = Budget(3.0, DELTA, site=9.0), run_named("c" * 64, RUN.study)
    ledger.reserve(RUN, people("abc"), steps(fit(3.0)), promised)
    with pytest.raises(BudgetSpent, match=r"of ε = 3 at δ = 0\.005 is spent"):
        ledger.reserve(again, people("bcd"), steps(1), promised)  # roles drawn anew, two patients again
    ledger.reserve(again, people("de"), steps(fit(3.0)), promised)  # nobody who took part before


# Public constants


def test_a_reservation_holds_the_constants_that_its_sums_are_made_with(ledger: Ledger) -> None:
    reserved = ledger.reserve(RUN, people("abcd"), Mechanism(0.5, SIGMA, 5), BUDGET)
    facts = read_journal(ledger.path)[reserved.line - 1].facts
    assert (facts["patients"], facts["expected_batch"], facts["clip_norm"]) == (4, 2.0, 1.0)
    assert facts["study"] == RUN.study
    assert reserved.constants == PublicConstants(4, 2.0, 1.0)


@pytest.mark.parametrize(
    ("run", "rate"), [(replace(RUN, clip_norm=2.0), 1.0), (RUN, 0.5)], ids=["another C", "another B̄"]
)
def test_other_constants_than_the_run_began_with_are_refused(ledger: Ledger, run: NoisedRun, rate: float) -> None:
    ledger.reserve(RUN, people("abc"), steps(5), BUDGET)
    with pytest.raises(PolicyRefused, match="where the run reserved with n = 3, B̄ = 3, C = 1") as caught:
        ledger.reserve(run, people("abc"), Mechanism(rate, SIGMA, 5), BUDGET)
    assert caught.value.exit_code == 4
    assert counted(ledger) == 5


def test_lines_of_an_earlier_version_count_as_their_run_s(ledger: Ledger) -> None:
    reserved = ledger.reserve(OTHER_RUN, people("abc"), steps(fit(3.0)), BUDGET)
    lines = read_journal(ledger.path)
    older = {key: fact for key, fact in lines[reserved.line - 1].facts.items() if key not in NEWER}
    elsewhere = ledger.path.parents[1] / "older"
    shutil.copytree(ledger.path.parent, elsewhere / "ledger")
    for name in ("ledger.jsonl", "ledger.jsonl.head"):
        (elsewhere / "ledger" / name).unlink()
    for line in lines[:2]:
        Journal(elsewhere / "ledger" / "ledger.jsonl").append(line.event, **line.facts)
    Journal(elsewhere / "ledger" / "ledger.jsonl").append("reserved", **{**older, "run": RUN.name})
    read = ledger_in(elsewhere)
    assert counted(read) == fit(3.0)
    with pytest.raises(BudgetSpent, match="of ε = 3 at"):
        read.reserve(RUN, people("abc"), steps(1), Budget(3.0, DELTA, site=9.0))
    read.reserve(OTHER_RUN, people("abc"), steps(1), Budget(3.0, DELTA, site=9.0))
