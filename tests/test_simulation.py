"""A federation in one process: what it leaves, how it goes on after a kill, what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import typer
from linear_run import linear_simulation
from linear_site import UNSAYABLE, cohorts_of, linear_generator, order, study_text
from tiny_cohorts import write_tiny_cohort

from fedphantom.common.errors import (
    ConfigError,
    DataError,
    OutputTaken,
    PeerError,
    PolicyRefused,
    StorageError,
)
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.gan.weights import load_weights, study_of
from fedphantom.common.journal import read_journal
from fedphantom.common.run_result import RUN_FINISHED
from fedphantom.common.study import parse_study
from fedphantom.server.aggregation import SiteFailure
from fedphantom.server.checkpoints import RoundRecord, latest_checkpoint
from fedphantom.server.commands import parse_sites, run_simulation, simulation_text
from fedphantom.server.rounds import Rounds
from fedphantom.server.run_folder import RunFolder
from fedphantom.server.simulation import going_on, in_process_exchange

SITES = ("site-a", "site-b", "site-c")


@pytest.fixture
def cohorts(tmp_path: Path) -> dict[str, Path]:
    return cohorts_of(tmp_path, SITES)


def events(out: Path) -> list[str]:
    return [entry.event for entry in read_journal(out / "journal.jsonl")]


def test_a_run_leaves_generator_summary_checkpoints_and_a_folder_a_site(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    seen: list[RoundRecord] = []
    result = linear_simulation(tmp_path / "out", cohorts, progress=seen.append)
    parameters, metadata = load_weights(tmp_path / "out" / "generator.safetensors")
    assert result.generator == tmp_path / "out" / "generator.safetensors"
    assert study_of(metadata) == parse_study(study_text())
    assert metadata["rounds"] == "3"
    assert parameters.keys() == linear_generator(parse_study(study_text())).keys()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["sites"] == list(SITES)
    assert summary["dp"] == "none"
    assert [r["round"] for r in summary["rounds"]] == [record.round for record in seen] == [1, 2, 3]
    assert summary["rounds"][0]["metrics"].keys() == {"fake_mean"}
    for site in SITES:
        assert (tmp_path / "out" / "sites" / site / "journal.jsonl").exists()
        assert (tmp_path / "out" / "sites" / site / "state").is_dir()
    assert events(tmp_path / "out") == ["run-started", *["round-done"] * 3, RUN_FINISHED]


def test_the_generator_is_the_moving_average_of_the_sites_means(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    linear_simulation(tmp_path / "out", cohorts)
    start = linear_generator(parse_study(study_text()))["up.weight"].astype(np.float64)
    states = dict.fromkeys(SITES, 0.1)
    aggregate = average = start
    for round_ in (1, 2, 3):
        states = {site: 0.7 * state + sum(site.encode()) / 1000 for site, state in states.items()}
        aggregate = np.mean([0.5 * aggregate + state for state in states.values()], axis=0)
        average = aggregate if round_ == 1 else 0.5 * average + 0.5 * aggregate
    got = load_weights(tmp_path / "out" / "generator.safetensors")[0]["up.weight"]
    np.testing.assert_allclose(got.astype(np.float64), average, rtol=1e-5)


def test_two_runs_from_the_same_seed_leave_the_same_file(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    one = linear_simulation(tmp_path / "one", cohorts)
    two = linear_simulation(tmp_path / "two", dict(reversed(cohorts.items())))
    assert one.generator.read_bytes() == two.generator.read_bytes()


def test_another_seed_leaves_another_generator(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    one = linear_simulation(tmp_path / "one", cohorts)
    two = linear_simulation(tmp_path / "two", cohorts, text=study_text(seed=8))
    assert one.generator.read_bytes() != two.generator.read_bytes()


def test_a_finished_run_called_again_trains_nothing_and_leaves_the_same(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    before = linear_simulation(tmp_path / "out", cohorts).generator.read_bytes()
    (tmp_path / "out" / "generator.safetensors").unlink()
    for cohort in cohorts.values():
        order(cohort, crash=[1, 2, 3])
    assert linear_simulation(tmp_path / "out", cohorts).generator.read_bytes() == before
    # Which generator it is, the journal says from its first end on, and once.
    noted = [e.facts["generators"] for e in read_journal(tmp_path / "out" / "journal.jsonl") if e.event == RUN_FINISHED]
    assert noted == [[parameters_digest(load_weights(tmp_path / "out" / "generator.safetensors")[0])]]


@pytest.mark.parametrize("kind", ["fail", "crash"])
def test_a_round_goes_on_without_a_site_that_fails(tmp_path: Path, cohorts: dict[str, Path], kind: str) -> None:
    order(cohorts["site-b"], **{kind: [2]})
    result = linear_simulation(tmp_path / "out", cohorts)
    assert [record.sites for record in result.rounds] == [SITES, ("site-a", "site-c"), SITES]
    assert result.rounds[1].left_out.keys() == {"site-b"}
    assert "site-left-out" in events(tmp_path / "out")


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "secure aggregation"])
def test_a_round_that_every_site_refuses_is_a_refusal_and_says_where_each_says_why(
    tmp_path: Path, cohorts: dict[str, Path], masked: bool
) -> None:
    for cohort in cohorts.values():
        order(cohort, refuse=[2])
    federation = "[federation.secure_aggregation]\nthreshold = 3\nclip = 8.0" if masked else ""
    with pytest.raises(PolicyRefused, match="site-a: the site's policy refused the round") as refused:
        linear_simulation(tmp_path / "out", cohorts, text=study_text(federation=federation))
    assert refused.value.exit_code == 4
    assert "RUN/sites/NAME/errors.log, says why" in refused.value.remedy
    assert "patients who changed" in (tmp_path / "out" / "sites" / "site-a" / "errors.log").read_text()


def test_a_site_that_took_part_in_no_round_is_named_at_the_end(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    def told(out: str) -> str:
        result = linear_simulation(tmp_path / out, cohorts)
        return simulation_text(json.loads(result.folder.summary.read_text()) | {"not_drawn": 0}).splitlines()[0]

    order(cohorts["site-b"], fail=[1, 2])
    assert "none" not in told("one")
    order(cohorts["site-b"], fail=[1, 2, 3])
    first = told("two")
    assert first.startswith("3 rounds over site-a, site-b, site-c in ")
    assert first.endswith(" s; site-b took part in none")


@pytest.mark.parametrize(
    ("kind", "said"), [("fail", "the site's cohort needs mending"), ("crash", "training failed unexpectedly")]
)
def test_of_a_sites_failure_the_coordinator_keeps_a_fixed_sentence_and_the_site_the_whole_text(
    tmp_path: Path, cohorts: dict[str, Path], kind: str, said: str
) -> None:
    order(cohorts["site-b"], **{kind: [2]})
    result = linear_simulation(tmp_path / "out", cohorts)
    assert result.rounds[1].left_out == {"site-b": said}
    of_the_site = tmp_path / "out" / "sites" / "site-b"
    kept = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and of_the_site not in path.parents]
    assert {"summary.json", "journal.jsonl"} <= {path.name for path in kept}
    assert not [path.name for path in kept if b"sub-0042" in path.read_bytes()]
    assert UNSAYABLE in (of_the_site / "errors.log").read_text()


def test_a_site_that_cannot_be_opened_is_left_out_with_a_fixed_sentence(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    linear_simulation(tmp_path / "begun", cohorts, text=study_text(rounds=1))
    folder = RunFolder(tmp_path / "begun")
    rounds = Rounds.open(folder.claimed()[0], folder, SITES, linear_generator(folder.claimed()[0]))

    def open_site(_: Path) -> NoReturn:
        raise ConfigError(f"17 patients at {UNSAYABLE}", expected="none", remedy="None.")

    outcomes = list(in_process_exchange(rounds, open_site)(rounds.request()))
    assert outcomes == [SiteFailure(site, "the site's configuration does not fit the study") for site in SITES]


def test_below_the_quorum_the_run_stops_names_the_sites_and_goes_on_once_they_are_mended(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    undisturbed = linear_simulation(tmp_path / "undisturbed", cohorts, text=study_text(quorum=3))
    order(cohorts["site-b"], crash=[2])
    with pytest.raises(PeerError, match=r"round 2 has 2 usable replies of 3 sites \(site-b: ") as stopped:
        linear_simulation(tmp_path / "out", cohorts, text=study_text(quorum=3))
    assert "sub-0042" not in str(stopped.value)
    checkpoint = latest_checkpoint(tmp_path / "out" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.round == 1
    order(cohorts["site-b"])
    mended = linear_simulation(tmp_path / "out", cohorts, text=study_text(quorum=3))
    assert mended.generator.read_bytes() == undisturbed.generator.read_bytes()


def test_a_site_later_than_the_deadline_is_left_out(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    order(cohorts["site-c"], sleep=2.0)
    result = linear_simulation(tmp_path / "out", cohorts, text=study_text(rounds=1, deadline_s=1.5))
    assert result.rounds[0].left_out == {"site-c": "no reply before the deadline"}


def test_a_run_killed_outright_goes_on_to_the_same_bits(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    undisturbed = linear_simulation(tmp_path / "undisturbed", cohorts)
    order(cohorts["site-b"], sleep=0.3)
    program = [sys.executable, str(Path(__file__).parent / "fakes" / "linear_run.py")]
    with subprocess.Popen(
        [*program, str(tmp_path / "out"), str(tmp_path / "cohorts"), "local", *SITES], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "round 1\n"
        process.send_signal(signal.SIGKILL)  # in round 2, while site-b trains
    assert not (tmp_path / "out" / "generator.safetensors").exists()
    order(cohorts["site-b"])
    resumed = linear_simulation(tmp_path / "out", cohorts)
    assert resumed.generator.read_bytes() == undisturbed.generator.read_bytes()
    assert "run-resumed" in events(tmp_path / "out")
    assert [record.round for record in resumed.rounds] == [1, 2, 3]


CHANGED = {
    "another study": (study_text(seed=8, rounds=4), SITES, "the study differs in seed, training.rounds;"),
    "a site less": (study_text(), SITES[:2], "its sites are site-a, site-b, site-c;"),
    "both": (study_text(quorum=1), SITES[:1], "in federation.quorum and its sites are site-a, site-b, site-c;"),
}


@pytest.mark.parametrize(("text", "sites", "difference"), CHANGED.values(), ids=CHANGED.keys())
def test_a_folder_of_another_run_is_not_continued_and_the_difference_is_told(
    tmp_path: Path, cohorts: dict[str, Path], text: str, sites: tuple[str, ...], difference: str
) -> None:
    before = linear_simulation(tmp_path / "out", cohorts).generator.read_bytes()
    with pytest.raises(ConfigError, match="another study or other sites") as refused:
        linear_simulation(tmp_path / "out", {site: cohorts[site] for site in sites}, text=text)
    assert difference in str(refused.value)
    assert (tmp_path / "out" / "generator.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["run.json", "study.toml"])
def test_a_folder_whose_claim_is_damaged_is_not_continued(tmp_path: Path, cohorts: dict[str, Path], name: str) -> None:
    linear_simulation(tmp_path / "out", cohorts)
    (tmp_path / "out" / name).write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"its run.json or study.toml is damaged|changed since"):
        linear_simulation(tmp_path / "out", cohorts, text=study_text(seed=8))


def test_a_run_that_was_moved_goes_on_where_it_lies_now(tmp_path: Path) -> None:
    shared = write_tiny_cohort(tmp_path / "shared", 6)
    rows = [f"sub-p{number:02d}\t{'site-a' if number < 3 else 'site-b'}" for number in range(6)]
    (shared / "participants.tsv").write_text("\n".join(["participant_id\tsite", *rows]) + "\n")
    sites = {"site-a": shared, "site-b": shared}
    before = linear_simulation(tmp_path / "out", sites).generator.read_bytes()
    (tmp_path / "out").rename(tmp_path / "moved")
    assert linear_simulation(tmp_path / "moved", sites).generator.read_bytes() == before
    assert not (tmp_path / "out").exists()
    assert all((tmp_path / "moved" / "sites" / name).stat().st_mode & 0o077 == 0 for name in sites)


def test_another_cohort_under_the_same_name_is_not_continued(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    linear_simulation(tmp_path / "out", cohorts)
    with pytest.raises(ConfigError, match="site 'site-a' belongs to another cohort"):
        linear_simulation(tmp_path / "out", {**cohorts, "site-a": tmp_path})


def test_checkpoints_of_another_study_are_refused(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    linear_simulation(tmp_path / "one", cohorts)
    linear_simulation(tmp_path / "two", cohorts, text=study_text(seed=8))
    for path in (tmp_path / "one" / "checkpoints").iterdir():
        path.write_bytes((tmp_path / "two" / "checkpoints" / path.name).read_bytes())
    with pytest.raises(ConfigError, match="checkpoints of another study"):
        linear_simulation(tmp_path / "one", cohorts)


def test_fewer_sites_than_the_quorum_are_refused_before_training(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="1 site for a quorum of 2"):
        linear_simulation(tmp_path / "out", {"site-a": cohorts["site-a"]})


@pytest.mark.parametrize("names", [("site-a", "SITE-A"), ("../up", "site-a")])
def test_site_names_that_would_share_or_leave_a_folder_are_refused(
    tmp_path: Path, cohorts: dict[str, Path], names: tuple[str, str]
) -> None:
    with pytest.raises(ConfigError, match="site name"):
        linear_simulation(tmp_path / "out", dict.fromkeys(names, cohorts["site-a"]))


def test_two_runs_in_one_folder_are_refused(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    with RunFolder(tmp_path / "out").lock(), pytest.raises(ConfigError, match="another process"):
        linear_simulation(tmp_path / "out", cohorts)


def test_a_full_disk_stops_the_run_rather_than_a_site(
    tmp_path: Path, cohorts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space is left on the disk", expected="space", remedy="Free some.")

    monkeypatch.setattr("linear_site.write_atomic", full)
    with pytest.raises(StorageError, match=r"^site 'site-[abc]': no space is left on the disk"):
        linear_simulation(tmp_path / "out", cohorts)


def test_the_command_takes_name_and_cohort_pairs(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    assert parse_sites([f"{name}={cohort}" for name, cohort in cohorts.items()]) == cohorts
    for bad in (["site-a"], ["=x"], ["site-a="], [f"a={tmp_path}", f"a={tmp_path}"]):
        with pytest.raises(typer.BadParameter):
            parse_sites(bad)
    with pytest.raises(DataError, match="site 'a': no cohort"):
        parse_sites(["a=/absent"])


def test_the_command_names_a_missing_study(tmp_path: Path) -> None:
    def never(*_: object) -> NoReturn:
        raise AssertionError

    with pytest.raises(ConfigError, match=r"absent\.toml"):
        run_simulation(
            tmp_path / "absent.toml",
            [],
            tmp_path / "out",
            "local",
            check_site=never,
            see_budget=never,
            prepare_site=never,
            open_site=never,
            initial=never,
            stage=never,
            say=never,
        )


def test_a_refused_simulation_leaves_its_folder_free(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    one = dict(list(cohorts.items())[:1])
    with pytest.raises(ConfigError, match="quorum"):
        linear_simulation(tmp_path / "out", one)
    linear_simulation(tmp_path / "out", cohorts)


def test_a_folder_that_holds_something_else_and_a_file_are_left_alone(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    hospital = tmp_path / "hospital"
    (hospital / "sub-01").mkdir(parents=True)
    file = tmp_path / "file"
    file.write_text("")
    for out, found in ((hospital, "holds something else"), (file, "a file where a folder")):
        with pytest.raises(OutputTaken, match=found):
            linear_simulation(out, cohorts)
    assert [path.name for path in hospital.iterdir()] == ["sub-01"]


# Going on.


def test_a_run_says_after_which_round_it_goes_on(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    told: list[tuple[int, int]] = []

    def begin(done: int, total: int) -> None:
        told.append((done, total))

    order(cohorts["site-b"], crash=[2])
    with pytest.raises(PeerError):
        linear_simulation(tmp_path / "out", cohorts, text=study_text(quorum=3), begin=begin)
    order(cohorts["site-b"])
    linear_simulation(tmp_path / "out", cohorts, text=study_text(quorum=3), begin=begin)
    linear_simulation(tmp_path / "out", cohorts, text=study_text(quorum=3), begin=begin)
    assert told == [(0, 3), (1, 3), (3, 3)]
    assert [going_on(*rounds) for rounds in told] == [
        "",
        "going on after round 1 of 3",
        "round 3 of 3 was done before: nothing is trained again",
    ]
