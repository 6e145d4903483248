"""A site's training under a promise: paid for first, marked throughout, stopped by its own budget."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from promised import DELTA, EPSILON, one_round, promised_site, promised_text, request, trainer
from tiny_cohorts import write_tiny_cohort

from fedphantom.client import private_training
from fedphantom.client.private_training import NOISED_MEANS
from fedphantom.client.site_setup import check_site_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.errors import (
    BudgetSpent,
    ConfigError,
    OutputTaken,
    PolicyRefused,
    StorageError,
    TrainingError,
    VerificationFailed,
)
from fedphantom.common.exchange import EPSILON as TOLD
from fedphantom.common.exchange import NOISED_STEPS, RoundRequest
from fedphantom.common.gan.training_state import TrainingState
from fedphantom.common.site_folder import PUBLIC_START, SiteFolder, site_material
from fedphantom.common.study import parse_study
from fedphantom.privacy.dp import drawn_sum, means, step
from fedphantom.privacy.dp.accounting import epsilon
from fedphantom.privacy.dp.ledger import Ledger
from fedphantom.privacy.dp.ledger_excerpt import ledger_excerpts
from fedphantom.privacy.dp.plan import noised_plan
from fedphantom.privacy.dp.randomness import SecretRandom
from fedphantom.privacy.dp.run_spent import refuse_understated, spent_at_site
from fedphantom.privacy.dp.statement import Spent, asked_for, dp_statement
from fedphantom.privacy.dp.step import NoisedSum

NORMS = 'noised = "norms"\ndiscriminator_steps = 2\nspare_rounds = 1'


def counted_steps(folder: SiteFolder) -> list[tuple[int, int]]:
    """Of every reservation: steps reserved, steps that count."""
    found = Ledger(folder.ledger, folder.journal).spending().reservations
    return [(one.mechanism.steps, one.steps_counted) for one in found]


# Means, taken once


def test_means_are_paid_for_once_and_serve_every_round(tmp_path: Path) -> None:
    folder = promised_site(tmp_path)
    first = one_round(folder)
    means = (folder.state / NOISED_MEANS).read_bytes()
    second = one_round(folder, 2)
    assert counted_steps(folder) == [(1, 1)]
    assert (folder.state / NOISED_MEANS).read_bytes() == means
    cost = epsilon([noised_plan(folder.study()).once()], DELTA)
    assert first.metrics[TOLD] == second.metrics[TOLD] == pytest.approx(cost)
    assert 0 < cost < EPSILON  # a spare step is left


def test_two_sites_alike_in_everything_draw_other_noise(tmp_path: Path) -> None:
    means = []
    for name in ("one", "two"):
        folder = promised_site(tmp_path / name)
        one_round(folder)
        means.append((folder.state / NOISED_MEANS).read_bytes())
    assert means[0] != means[1]


def test_the_generators_last_layer_alone_matches_means(tmp_path: Path) -> None:
    folder = promised_site(tmp_path)
    before, after = request(folder).generator, one_round(folder).generator
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"head.weight", "head.bias"}


def test_damaged_means_are_not_trained_on(tmp_path: Path) -> None:
    folder = promised_site(tmp_path)
    one_round(folder)
    file = folder.state / NOISED_MEANS
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(Exception, match="noised means"):
        one_round(folder, 2)


def test_means_lost_are_paid_for_again_until_the_budget_is_spent(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, rounds=3)
    one_round(folder)
    (folder.state / NOISED_MEANS).unlink()
    assert one_round(folder, 2).metrics[TOLD] <= EPSILON
    (folder.state / NOISED_MEANS).unlink()
    with pytest.raises(BudgetSpent, match="is spent, per patient"):
        one_round(folder, 3)
    assert counted_steps(folder) == [(1, 1), (1, 1)]


def test_a_larger_budget_of_the_site_s_loosens_no_study_s_promise(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, rounds=3)
    with (folder.root / "site.toml").open("a") as file:
        file.write("budget = 50.0\n")
    folder = SiteFolder.open(folder.root)
    for number in (1, 2):
        assert one_round(folder, number).metrics[TOLD] <= EPSILON
        (folder.state / NOISED_MEANS).unlink()
    with pytest.raises(BudgetSpent, match="in this study, as it promises them"):
        one_round(folder, 3)
    assert counted_steps(folder) == [(1, 1), (1, 1)]


def test_a_study_begun_again_in_another_folder_says_what_both_have_cost(tmp_path: Path) -> None:
    first = promised_site(tmp_path)
    once = one_round(first).metrics
    again = copied_untrained(first, tmp_path / "again")
    told = one_round(again).metrics
    both = epsilon([noised_plan(first.study()).whole()], DELTA)
    assert (once[NOISED_STEPS], told[NOISED_STEPS]) == (1, 2)
    assert told[TOLD] == pytest.approx(both)
    assert once[TOLD] < both <= EPSILON
    study = first.study()
    with pytest.raises(VerificationFailed, match="where this site's patients have spent"):
        refuse_understated(first, study, dp_statement(study, {"site-a": Spent(once[TOLD], 1)}))
    (excerpt,) = ledger_excerpts([again], study)
    assert (excerpt.reserved, excerpt.spent.steps) == (2, 2)
    assert all(line.this_study for line in excerpt.lines)


def copied_untrained(folder: SiteFolder, root: Path) -> SiteFolder:
    """A folder for the same study and cohort with the first one's ledger, and coins of its own."""
    root.mkdir()
    for name in ("site.toml", "study.toml", "egress.json", PUBLIC_START):
        shutil.copy(folder.root / name, root)
    text = (root / "site.toml").read_text().replace("../cohort", str(folder.cohort.resolve()))
    (root / "site.toml").write_text(text + f"ledger = {json.dumps(str(folder.ledger))}\n")
    return SiteFolder.open(root)


# Gradients, paid for by the round


def test_a_rounds_noised_steps_are_paid_for_before_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = promised_site(tmp_path, promise=NORMS)
    seen: list[list[tuple[int, int]]] = []
    plain = private_training.PrivateDiscriminatorStep.__call__

    def looking(self, state, batch, fake):  # type: ignore[no-untyped-def]  # as the method it stands in for
        seen.append(counted_steps(folder))
        return plain(self, state, batch, fake)

    monkeypatch.setattr(private_training.PrivateDiscriminatorStep, "__call__", looking)
    one_round(folder)
    assert len(seen) == 4
    assert seen[0] == [(8, 8)]  # four steps of the generator, two of the discriminator for each
    assert counted_steps(folder) == [(8, 8)]


def test_a_round_that_failed_counts_whole_and_is_paid_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = promised_site(tmp_path, promise=NORMS)
    calls: list[int] = []
    plain = private_training.PrivateDiscriminatorStep.__call__

    def failing(self, state, batch, fake):  # type: ignore[no-untyped-def]  # as the method it stands in for
        calls.append(1)
        if len(calls) == 2:
            raise TrainingError("the power failed", expected="power", remedy="Wait.")
        return plain(self, state, batch, fake)

    monkeypatch.setattr(private_training.PrivateDiscriminatorStep, "__call__", failing)
    with pytest.raises(TrainingError):
        one_round(folder)
    assert counted_steps(folder) == [(8, 8)]
    assert one_round(folder).metrics[TOLD] <= EPSILON
    assert counted_steps(folder) == [(8, 8), (8, 8)]
    assert one_round(folder, 2).metrics[TOLD] <= EPSILON  # the spare round was for the failed one


def test_a_round_too_many_is_refused_and_says_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = promised_site(tmp_path, promise=NORMS)

    def failing(*arguments: object) -> None:
        raise TrainingError("the power failed", expected="power", remedy="Wait.")

    with monkeypatch.context() as patched:
        patched.setattr(private_training.PrivateDiscriminatorStep, "__call__", failing)
        for _ in range(3):  # two rounds and a spare one
            with pytest.raises(TrainingError):
                one_round(folder)
    with pytest.raises(BudgetSpent, match=r"of ε = 8 at δ = 0\.005 is spent, per patient"):
        one_round(folder)
    assert counted_steps(folder) == [(8, 8)] * 3


def test_a_round_already_answered_is_answered_again_without_a_step(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, promise=NORMS)
    first, again = one_round(folder), one_round(folder)
    assert counted_steps(folder) == [(8, 8)]
    assert all(np.array_equal(first.generator[name], again.generator[name]) for name in first.generator)
    assert first.metrics == again.metrics


KILLED = """
import os, signal, sys
from pathlib import Path
from fedphantom.client import private_training
from fedphantom.common.site_folder import SiteFolder, site_material
from fedphantom.common.study import parse_study
sys.path.insert(0, sys.argv[2])
from test_private_training import one_round
plain = private_training.PrivateDiscriminatorStep.__call__
def dying(self, *arguments):
    plain(self, *arguments)
    os.kill(os.getpid(), signal.SIGKILL)
private_training.PrivateDiscriminatorStep.__call__ = dying
one_round(SiteFolder.open(Path(sys.argv[1])))
"""


def test_a_killed_process_leaves_its_round_counted_whole(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, promise=NORMS)
    fakes = Path(__file__).parent / "fakes"
    code = KILLED.replace("sys.path.insert(0, sys.argv[2])", "sys.path[:0] = sys.argv[2:]")
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder.root), str(Path(__file__).parent), str(fakes)], check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert counted_steps(folder) == [(8, 8)]
    one_round(folder)
    assert counted_steps(folder) == [(8, 8), (8, 8)]


SPIED = 'noised = "{noised}"\ndiscriminator_steps = 2\nsampling_rate = 0.7\nclip_norm = 0.9'


@pytest.mark.parametrize("noised", ["means", "generator-head", "norms", 'norms"\nfakes = "public-label-maps'])
def test_what_is_noised_is_what_was_planned_and_paid_for(
    noised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every noised sum of a round: σ, C, B̄ and q are the plan's, and the ledger holds it before it is made."""
    folder = promised_site(tmp_path, promise=SPIED.format(noised=noised))
    guard: list[int] = []
    mean = drawn_sum.DrawnSum.mean

    def spied_guard(self, gradient_of, size):  # type: ignore[no-untyped-def]  # as the method it watches
        guard.append(self._paid)
        return mean(self, gradient_of, size)

    monkeypatch.setattr(drawn_sum.DrawnSum, "mean", spied_guard)
    plan, patients = noised_plan(folder.study()), len(site_material(folder, folder.study()).coins.training_patients())
    sums: list[NoisedSum] = []
    rates: list[tuple[int, float]] = []
    paid: list[int] = []
    draw, total = SecretRandom.poisson_sample, step.noised_mean

    def spied_draw(self: SecretRandom, number: int, rate: float) -> object:
        rates.append((number, rate))
        return draw(self, number, rate)

    def spied_sum(drawn, vector_of, size, how, random):  # type: ignore[no-untyped-def]  # as the function it watches
        sums.append(how)
        paid.append(sum(counted for _, counted in counted_steps(folder)))
        return total(drawn, vector_of, size, how, random)

    monkeypatch.setattr(SecretRandom, "poisson_sample", spied_draw)
    for module in (means, drawn_sum):
        monkeypatch.setattr(module, "noised_mean", spied_sum)
    one_round(folder)
    taken = {"means": 1, "generator-head": 4}.get(noised, 8)
    assert sums == [NoisedSum(0.9, plan.noise_multiplier, 0.7 * patients)] * taken
    assert rates == [(patients, 0.7)] * taken
    assert paid == [taken] * taken
    assert guard == ([] if noised == "means" else [taken] * taken)  # no more could have been taken
    assert counted_steps(folder) == [(taken, taken)]


def test_a_statement_that_says_less_than_the_sites_own_ledger_is_not_approved(tmp_path: Path) -> None:
    folder = promised_site(tmp_path)
    one_round(folder)
    study = folder.study()
    spent = spent_at_site(folder, study)
    assert spent.steps == 1
    refuse_understated(folder, study, dp_statement(study, {"site-a": spent}))
    refuse_understated(folder, study, asked_for(study))  # of a site that did not answer when it was last asked
    for less in (Spent(spent.epsilon - 0.01, 1), Spent(spent.epsilon, 0)):
        understated = dp_statement(study, {"site-a": Spent(less.epsilon, max(1, less.steps))})
        assert understated is not None
        with pytest.raises(VerificationFailed, match="where this site's patients have spent"):
            refuse_understated(folder, study, understated.model_copy(update={"steps": less.steps}))
    with pytest.raises(VerificationFailed, match="states nothing"):
        refuse_understated(folder, study, None)
    (folder.ledger / "ledger.jsonl").unlink()
    with pytest.raises(VerificationFailed, match="missing"):
        refuse_understated(folder, study, dp_statement(study, {"site-a": spent}))


# What is refused before a step is taken


def test_another_start_than_the_studys_is_refused(tmp_path: Path) -> None:
    folder = promised_site(tmp_path)
    file = folder.root / PUBLIC_START
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(VerificationFailed, match="other than the one that the study names"):
        trainer(folder)


def test_a_promise_that_leaves_pure_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match="pure noise"):
        trainer(promised_site(tmp_path, promise='noised = "all"\nsampling_rate = 0.2', local_steps=100))


def test_a_delta_that_could_publish_a_patient_is_refused(tmp_path: Path) -> None:
    folder = promised_site(tmp_path)
    text = (folder.root / "study.toml").read_text()
    (folder.root / "study.toml").write_text(text.replace(f"delta = {DELTA}", "delta = 0.3"))
    with pytest.raises(Exception, match=r"δ = 0\.3 for"):
        trainer(folder)


@pytest.mark.parametrize("noised", ["means", "generator-head", "norms"])
def test_both_networks_are_looked_at_before_any_patient_is(
    noised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer with running statistics would carry patients past the noise."""
    folder = promised_site(tmp_path, promise=SPIED.format(noised=noised))
    make = TrainingState.__init__

    def with_batch_norm(self, generator, *rest, **named):  # type: ignore[no-untyped-def]  # as what it stands in for
        generator.add_module("mixing", torch.nn.BatchNorm3d(3, affine=False, track_running_stats=False))
        make(self, generator, *rest, **named)

    monkeypatch.setattr(TrainingState, "__init__", with_batch_norm)
    with pytest.raises(ConfigError, match="batch norm"):
        trainer(folder)
    assert counted_steps(folder) == []


@pytest.mark.parametrize("noised", ["means", "norms"])
def test_noise_that_no_network_could_hold_is_refused_before_anything_is_spent(noised: str, tmp_path: Path) -> None:
    """No study that parses asks for it; of two guards the second."""
    folder = promised_site(tmp_path, promise=SPIED.format(noised=noised))
    own = trainer(folder)
    assert isinstance(own.way, private_training.PrivateTraining)
    own.way._promise = own.way._promise.model_copy(update={"clip_norm": 1e300})
    with pytest.raises(ConfigError, match=r"noised steps with C = 1e\+300"):
        own.train_round(request(folder))
    assert counted_steps(folder) == []


@pytest.mark.parametrize("place", ["/proc/nowhere", "occupied"])
def test_a_site_whose_ledger_cannot_be_made_is_not_made_either(place: str, tmp_path: Path) -> None:
    (tmp_path / "occupied").touch()
    with pytest.raises((StorageError, OutputTaken), match="the privacy ledger: ") as caught:
        promised_site(tmp_path, ledgers=tmp_path / place)  # joined to it, an absolute path stays as it is
    assert place not in str(caught.value)
    assert not (tmp_path / "site").exists()


def test_a_generator_that_is_no_longer_finite_stops_the_round(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, promise=SPIED.format(noised="generator-head"))
    asked = request(folder)
    broken = {
        name: np.full_like(value, np.nan) if name.startswith("down") else value
        for name, value in asked.generator.items()
    }
    with pytest.raises(TrainingError, match="not finite at step 1"):
        trainer(folder).train_round(RoundRequest(asked.study_digest, 1, broken))


def test_a_site_that_could_learn_nothing_is_found_before_any_site_spends(tmp_path: Path) -> None:
    study = parse_study(promised_text("0" * 64, promise='noised = "all"\nsampling_rate = 0.2'))
    cohort = read_cohort(write_tiny_cohort(tmp_path / "cohort", 20))
    with pytest.raises(PolicyRefused, match="pure noise"):
        check_site_cohort(tmp_path / "site", "A", cohort, study, lambda done, number: None)
