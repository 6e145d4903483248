"""A site's round: what it trains on, what it answers, and that a kill at any moment costs time and nothing else."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cohorts import tiny_study, tiny_text, write_tiny_cohort
from trained_run import trained_run

from fedphantom.client.egress import FAKE_METRICS, EgressRule, check_reply
from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.cohorts.roles import load_roles
from fedphantom.common.device import choose_device
from fedphantom.common.errors import DataError, PolicyRefused
from fedphantom.common.exchange import Parameters, RoundReply, RoundRequest
from fedphantom.common.gan.generation import load_generator, numpy_parameters, paint
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.gan.parameters import ParameterSpec, parameters_digest
from fedphantom.common.gan.weights import load_weights
from fedphantom.common.labels.schematic import schematic_classes
from fedphantom.common.randomness import derived_seed
from fedphantom.common.study import Study
from fedphantom.common.tensor_file import decode
from fedphantom.server.simulation import SimulationResult

ROLES = "test = 0.2\nreference = 0.1\ncontrol = 0.1\naudit = 0.4\nvalidation = 0.4"
TEXT, STUDY = tiny_text(roles=ROLES), tiny_study(roles=ROLES)
PATIENTS = 12


def initial(study: Study, seed: int = 0) -> Parameters:
    return numpy_parameters(make_generator(study, seed))


def make_site(root: Path, cohort: Path, text: str = TEXT) -> Path:
    create_site_folder(root, "site-a", cohort, text, ParameterSpec.of(initial(STUDY)))
    return root


def request(generator: Parameters, round_: int = 1) -> RoundRequest:
    return RoundRequest(STUDY.digest(), round_, generator)


def digest(reply: RoundReply) -> str:
    return parameters_digest(reply.generator)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cohort(tmp_path_factory.mktemp("data") / "cohort", PATIENTS)


@pytest.fixture
def site(tmp_path: Path, cohort: Path) -> Path:
    return make_site(tmp_path / "site", cohort)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, cohort: Path) -> tuple[RoundReply, RoundReply]:
    """Two undisturbed rounds, the second from the first one's answer."""
    trainer = LocalTrainer.open(make_site(tmp_path_factory.mktemp("unbroken") / "site", cohort))
    first = trainer.train_round(request(initial(STUDY)))
    return first, trainer.train_round(request(first.generator, 2))


# The reply


def test_a_reply_holds_the_allow_listed_parameters_and_passes_the_egress_filter(
    unbroken: tuple[RoundReply, RoundReply],
) -> None:
    start = initial(STUDY)
    rule = EgressRule(ParameterSpec.of(start))
    for round_, reply in enumerate(unbroken, start=1):
        check_reply(reply, rule, site="site-a", request=request(start, round_))
        assert reply.generator.keys() == start.keys()
        assert reply.weight == 1.0
        assert reply.metrics.keys() == set(FAKE_METRICS)
        assert reply.metrics["steps"] == STUDY.training.local_steps
    assert digest(unbroken[0]) != parameters_digest(start)
    assert digest(unbroken[0]) != digest(unbroken[1])


def test_a_reply_is_the_raw_generator_not_an_average(site: Path) -> None:
    lone = LocalTrainer.open(site)
    reply = lone.train_round(request(initial(STUDY)))
    network, _ = decode((site / "state" / "committed.safetensors").read_bytes(), "state")
    assert all(np.array_equal(value, network[f"generator.{name}"]) for name, value in reply.generator.items())


def test_metrics_follow_from_the_reply_and_public_facts_alone(unbroken: tuple[RoundReply, RoundReply]) -> None:
    for reply in unbroken:
        network = make_generator(STUDY, 99)
        network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in reply.generator.items()})
        seed = derived_seed(STUDY.seed, "site", "site-a")
        fake = paint(network, schematic_classes(STUDY)[None], STUDY, seed, choose_device("cpu"))
        assert reply.metrics["fake_mean"] == pytest.approx(float(fake.mean()), abs=1e-5)
        assert reply.metrics["fake_std"] == pytest.approx(float(fake.std()), abs=1e-5)


def test_the_schematic_label_map_holds_every_class_and_a_border_of_background() -> None:
    classes = schematic_classes(STUDY)
    assert classes.shape == STUDY.grid.shape
    assert set(np.unique(classes)) == {0, 1, 2}
    assert not classes[0].any()
    assert not classes[:, :, -1].any()


def test_a_site_that_missed_a_round_trains_at_the_studys_step_not_its_own(site: Path) -> None:
    trainer = LocalTrainer.open(site)
    trainer.train_round(request(initial(STUDY), 2))
    _, facts = decode((site / "state" / "committed.safetensors").read_bytes(), "state")
    assert facts["step"] == 2 * STUDY.training.local_steps


# Whose scans


def test_only_training_patients_scans_are_used(
    tmp_path: Path, cohort: Path, unbroken: tuple[RoundReply, RoundReply]
) -> None:
    LocalTrainer.open(make_site(tmp_path / "roles", cohort))
    coins = load_roles(tmp_path / "roles" / "coins.json")
    counts = coins.counts()
    assert all(counts[role] for role in ("test", "reference", "control", "holdout", "validation", "member"))
    training = frozenset(coins.training_patients())
    others = frozenset(coins.roles) - training
    names = {patient: patient.removeprefix("sub-") for patient in coins.roles}

    changed = write_tiny_cohort(tmp_path / "changed", PATIENTS, brighter=frozenset(names[p] for p in others))
    reply = LocalTrainer.open(make_site(tmp_path / "one", changed)).train_round(request(initial(STUDY)))
    assert digest(reply) == digest(unbroken[0])

    marker = frozenset(names[p] for p in sorted(training)[:1])
    marked = write_tiny_cohort(tmp_path / "marked", PATIENTS, brighter=marker)
    reply = LocalTrainer.open(make_site(tmp_path / "two", marked)).train_round(request(initial(STUDY)))
    assert digest(reply) != digest(unbroken[0])


def test_a_site_without_a_training_patient_is_refused(tmp_path: Path) -> None:
    alone = write_tiny_cohort(tmp_path / "one-patient", 1)
    with pytest.raises(DataError, match="no training patient"):
        LocalTrainer.open(make_site(tmp_path / "site", alone, tiny_text(roles="test = 0.9\naudit = 0\ncontrol = 0")))


def test_another_patient_in_the_cohort_is_refused(site: Path, cohort: Path, tmp_path: Path) -> None:
    LocalTrainer.open(site)
    larger = write_tiny_cohort(tmp_path / "larger", PATIENTS + 1)
    text = (site / "site.toml").read_text()
    (site / "site.toml").write_text(text.replace(str(cohort), str(larger)))
    with pytest.raises(PolicyRefused, match="changed since its roles were drawn"):
        LocalTrainer.open(site)


# Asked again, and killed


def test_a_finished_round_answers_again_identically(site: Path, unbroken: tuple[RoundReply, RoundReply]) -> None:
    first = LocalTrainer.open(site)
    one = first.train_round(request(initial(STUDY)))
    again = first.train_round(request(initial(STUDY)))
    steps: list[int] = []
    reopened = LocalTrainer.open(site, lambda done, total: steps.append(done)).train_round(request(initial(STUDY)))
    assert digest(one) == digest(again) == digest(reopened) == digest(unbroken[0])
    assert one.metrics == again.metrics == reopened.metrics
    assert steps == []


def test_a_trainer_opened_anew_each_round_gives_what_one_kept_open_gives(
    site: Path, unbroken: tuple[RoundReply, RoundReply]
) -> None:
    first = LocalTrainer.open(site).train_round(request(initial(STUDY)))
    second = LocalTrainer.open(site).train_round(request(first.generator, 2))
    assert (digest(first), digest(second)) == tuple(map(digest, unbroken))


def test_an_answered_round_is_not_trained_from_another_generator(site: Path) -> None:
    trainer = LocalTrainer.open(site)
    first = trainer.train_round(request(initial(STUDY)))
    with pytest.raises(PolicyRefused, match="round 1 again from another generator"):
        trainer.train_round(request(initial(STUDY, seed=1)))
    trainer.train_round(request(first.generator, 2))
    with pytest.raises(PolicyRefused, match="round 2 is done here"):
        LocalTrainer.open(site).train_round(request(initial(STUDY)))


def test_progress_counts_the_rounds_own_steps(site: Path) -> None:
    told: list[tuple[int, int]] = []
    trainer = LocalTrainer.open(site, lambda done, total: told.append((done, total)))
    first = trainer.train_round(request(initial(STUDY)))
    trainer.train_round(request(first.generator, 2))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)] * 2


def test_a_round_that_failed_in_this_process_leaves_no_trace_in_the_next_attempt(
    site: Path, unbroken: tuple[RoundReply, RoundReply]
) -> None:
    failing = [True]

    def fail_once(done: int, total: int) -> None:
        if done == 3 and failing.pop():
            raise MemoryError

    trainer = LocalTrainer.open(site, fail_once)
    with pytest.raises(MemoryError):
        trainer.train_round(request(initial(STUDY)))
    failing.append(False)
    assert digest(trainer.train_round(request(initial(STUDY)))) == digest(unbroken[0])


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
import torch._dynamo  # which the first optimiser step would load in every child
from fedphantom.client import local_training
from fedphantom.common.exchange import RoundRequest
local_training.SAVE_EVERY_S = 0.0
def train_and_die(site, round_, step):
    steps = 0
    def stop(done, total):
        nonlocal steps
        steps += 1
        if steps == (round_ - 1) * total + step:
            os.kill(os.getpid(), signal.SIGKILL)
    trainer = local_training.LocalTrainer.open(Path(site), stop)
    generator = dict(np.load(sys.argv[1], allow_pickle=False))
    for number in range(1, round_ + 1):
        generator = trainer.train_round(RoundRequest("", number, generator)).generator
    os.kill(os.getpid(), signal.SIGKILL)
for site, round_, step in zip(*[iter(sys.argv[2:])] * 3, strict=True):
    child = os.fork()
    if not child:
        train_and_die(site, int(round_), int(step))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Trains in one process a site, each killed outright after this step of the round; beyond the last: after it."""

DEATHS = {"step 3": (1, 3), "the end": (1, 5), "round 2": (2, 3), "damaged": (1, 3), "other": (1, 3)}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, cohort: Path) -> dict[str, Path]:
    """Site folders as processes left them that were killed outright, by when."""
    root = tmp_path_factory.mktemp("killed")
    np.savez(root / "start.npz", **initial(STUDY))  # type: ignore[arg-type]  # its stub takes a flag among the arrays
    sites = {name: make_site(root / name.replace(" ", "-"), cohort) for name in DEATHS}
    arguments = [str(part) for name, (round_, step) in DEATHS.items() for part in (sites[name], round_, step)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", KILLED, str(root / "start.npz"), *arguments]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(DEATHS), done.stderr
    return sites


@pytest.mark.parametrize(("when", "step"), [pytest.param("step 3", 3, marks=pytest.mark.long), ("the end", 5)])
def test_a_round_killed_outright_goes_on_to_the_same_bits(
    when: str, step: int, killed: dict[str, Path], unbroken: tuple[RoundReply, RoundReply]
) -> None:
    steps: list[int] = []
    trainer = LocalTrainer.open(killed[when], lambda done, total: steps.append(done))
    reply = trainer.train_round(request(initial(STUDY)))
    assert digest(reply) == digest(unbroken[0])
    assert steps == list(range(step, 5))  # the step at which it died is done again, those before it are not
    assert reply.metrics == unbroken[0].metrics
    left = [path.name for path in (killed[when] / "state").iterdir() if not path.name.startswith(".tmp-")]
    assert left == ["committed.safetensors"]


def test_a_second_round_killed_outright_goes_on_to_the_same_bits(
    killed: dict[str, Path], unbroken: tuple[RoundReply, RoundReply]
) -> None:
    reply = LocalTrainer.open(killed["round 2"]).train_round(request(unbroken[0].generator, 2))
    assert digest(reply) == digest(unbroken[1])


def test_a_damaged_partial_state_costs_its_steps_not_the_round(
    killed: dict[str, Path], unbroken: tuple[RoundReply, RoundReply]
) -> None:
    partial = killed["damaged"] / "state" / "partial.safetensors"
    partial.write_bytes(partial.read_bytes()[:-100])
    assert digest(LocalTrainer.open(killed["damaged"]).train_round(request(initial(STUDY)))) == digest(unbroken[0])


def test_an_interrupted_round_asked_for_from_another_generator_begins_anew(site: Path, killed: dict[str, Path]) -> None:
    other = initial(STUDY, seed=1)
    expected = LocalTrainer.open(site).train_round(request(other))
    assert digest(LocalTrainer.open(killed["other"]).train_round(request(other))) == digest(expected)


# A federation of such sites


def federation(out: Path, cohorts: dict[str, Path]) -> SimulationResult:
    return trained_run(TEXT, cohorts, out, initial=initial)


def test_three_sites_train_one_generator_and_the_same_one_twice(tmp_path: Path) -> None:
    cohorts = {
        f"site-{letter}": write_tiny_cohort(tmp_path / letter, 6, seed=seed) for seed, letter in enumerate("abc")
    }
    one, two = federation(tmp_path / "one", cohorts), federation(tmp_path / "two", cohorts)
    assert one.generator.read_bytes() == two.generator.read_bytes()
    parameters, _ = load_weights(one.generator)
    assert all(np.isfinite(value).all() for value in parameters.values())
    assert parameters_digest(parameters) != parameters_digest(initial(STUDY))
    assert [record.sites for record in one.rounds] == [("site-a", "site-b", "site-c")] * 2
    summary = json.loads(one.folder.summary.read_text())
    for record in summary["rounds"]:
        assert all(math.isfinite(value) for value in record["metrics"].values())
    assert load_generator(one.generator, choose_device("cpu")).study == STUDY
