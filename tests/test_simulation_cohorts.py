"""Cohorts of a simulation are looked through before anything is made, and budgets that are spent are no failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from linear_run import linear_simulation
from linear_site import study_text
from tiny_cohorts import write_tiny_cohort

from fedphantom.common.cohort import Cohort
from fedphantom.common.errors import (
    BudgetSpent,
    ConfigError,
    DataError,
    FedPhantomError,
    PeerError,
    PolicyRefused,
)
from fedphantom.common.sayable import BUDGET_SPENT, POLICY_REFUSED
from fedphantom.common.study import Study
from fedphantom.server.checkpoints import RoundRecord
from fedphantom.server.flower_control import FlowerControl
from fedphantom.server.following import follow
from fedphantom.server.rounds import below_quorum
from fedphantom.server.run_folder import RunFolder
from fedphantom.server.simulation import CheckSite

SITES = ("site-a", "site-b", "site-c")


def check_site(refuse: tuple[str, ...], seen: list[str]) -> CheckSite:
    def check(folder: Path, name: str, cohort: Cohort, study: Study, /) -> str:
        seen.append(name)
        if name in refuse:
            raise DataError(f"nothing at {name} fits", expected="fitting scans", remedy="Mend them.")
        return "1 of 3 scans left out" if name == "site-c" else ""

    return check


@pytest.fixture
def readable(tmp_path: Path) -> dict[str, Path]:
    return {site: write_tiny_cohort(tmp_path / site, 1, seed) for seed, site in enumerate(SITES)}


def test_every_unusable_cohort_is_named_before_a_folder_is_made(tmp_path: Path, readable: dict[str, Path]) -> None:
    seen: list[str] = []
    with pytest.raises(DataError) as refused:
        linear_simulation(tmp_path / "out", readable, check_site=check_site(("site-a", "site-b"), seen))
    assert refused.value.found == "site 'site-a': nothing at site-a fits; site 'site-b': nothing at site-b fits"
    assert seen == list(SITES)
    assert not (tmp_path / "out").exists()


def test_a_cohort_that_cannot_be_read_is_refused_too_where_cohorts_are_looked_through(
    tmp_path: Path, readable: dict[str, Path]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="site 'site-b': an empty folder"):
        linear_simulation(tmp_path / "out", readable | {"site-b": tmp_path / "empty"}, check_site=check_site((), []))
    assert not (tmp_path / "out").exists()


def test_what_is_left_out_is_said_and_the_rest_goes_on(tmp_path: Path, readable: dict[str, Path]) -> None:
    said: list[str] = []
    result = linear_simulation(tmp_path / "out", readable, check_site=check_site((), []), say=said.append)
    assert said == ["site 'site-c': 1 of 3 scans left out"]
    assert len(result.rounds) == 3


def test_a_run_that_goes_on_looks_through_its_cohorts_again_and_a_finished_one_does_not(
    tmp_path: Path, readable: dict[str, Path]
) -> None:
    stop = [True]

    def interrupt(record: RoundRecord) -> None:
        if stop.pop():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        linear_simulation(tmp_path / "out", readable, progress=interrupt)
    with pytest.raises(DataError, match="nothing at site-a"):
        linear_simulation(tmp_path / "out", readable, check_site=check_site(("site-a",), []))
    linear_simulation(tmp_path / "out", readable)
    seen: list[str] = []
    linear_simulation(tmp_path / "out", readable, check_site=check_site(("site-a",), seen))
    assert seen == []


def test_a_run_of_another_study_is_refused_before_its_cohorts_are_looked_through(
    tmp_path: Path, readable: dict[str, Path]
) -> None:
    linear_simulation(tmp_path / "out", readable, text=study_text(rounds=1))
    with pytest.raises(ConfigError, match="another study"):
        linear_simulation(tmp_path / "out", readable, check_site=check_site(SITES, []))


@pytest.mark.parametrize(
    ("reasons", "kind", "code"),
    [
        ([BUDGET_SPENT], BudgetSpent, 4),
        ([POLICY_REFUSED], PolicyRefused, 4),
        ([BUDGET_SPENT, POLICY_REFUSED], PolicyRefused, 4),
        ([BUDGET_SPENT, "no reply"], PeerError, 1),
        ([POLICY_REFUSED, "no reply"], PeerError, 1),
        ([], PeerError, 1),
    ],
    ids=[
        "the budget alone",
        "the policy alone",
        "budget and policy",
        "budget, and a site that is silent",
        "policy, and a site that is silent",
        "nobody said why",
    ],
)
def test_too_few_sites_for_their_budgets_or_policies_alone_is_a_refusal_and_no_failure(
    reasons: list[str], kind: type[FedPhantomError], code: int
) -> None:
    error = below_quorum("round 1 has 0 usable replies", expected="at least 1", reasons=reasons)
    assert type(error) is kind
    assert error.exit_code == code


@pytest.mark.parametrize("kind", [BudgetSpent, PolicyRefused])
def test_a_refusal_in_the_server_s_process_is_one_here_too(kind: type[FedPhantomError], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_outcome({"kind": kind.__name__, "found": "all of it", "expected": "some left", "remedy": "None."})
    with pytest.raises(kind, match="all of it"):
        follow(folder, FlowerControl(tmp_path, "127.0.0.1:1"), "1", lambda record: None, tmp_path / "log", lambda: None)
