"""A site's own generator under real training: what leaves beside it, and that a kill at any moment changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_cohorts import tiny_text, write_tiny_cohort

from fedphantom.client import own_generator
from fedphantom.client.egress import FAKE_METRICS
from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.device import choose_device
from fedphantom.common.errors import StorageError
from fedphantom.common.exchange import RoundReply, RoundRequest
from fedphantom.common.gan.generation import initial_parameters, load_generator, numpy_parameters
from fedphantom.common.gan.parameters import ParameterSpec, parameters_digest
from fedphantom.common.journal import read_journal
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import Study, parse_study

ROLES = "test = 0.2\ncontrol = 0.1\naudit = 0.4"


def text(sharing: str) -> str:
    return tiny_text(rounds=1, local_steps=4, roles=ROLES) + f'[federation]\nsharing = "{sharing}"\n'


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cohort(tmp_path_factory.mktemp("data") / "cohort", 12)


def make_site(root: Path, cohort: Path, sharing: str = "volumes") -> SiteFolder:
    spec = ParameterSpec.of(initial_parameters(parse_study(text(sharing))))
    return create_site_folder(root, "site-a", cohort, text(sharing), spec)


def asked(study: Study) -> RoundRequest:
    return RoundRequest(study.digest(), 1, initial_parameters(study) if study.federation.weights_leave else {})


def answer(folder: SiteFolder) -> RoundReply:
    return Site(folder, LocalTrainer.open).train_round(asked(folder.study()))


def kept(folder: SiteFolder) -> str:
    return parameters_digest(numpy_parameters(load_generator(folder.generator, choose_device("cpu")).network))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cohort: Path) -> SiteFolder:
    folder = make_site(tmp_path_factory.mktemp("undisturbed") / "site", cohort)
    answer(folder)
    return folder


def test_a_reply_without_weights_carries_figures_on_fakes_and_the_declared_weight(
    tmp_path: Path, cohort: Path, undisturbed: SiteFolder
) -> None:
    reply = answer(make_site(tmp_path / "volumes", cohort))
    assert reply.generator == {}
    assert reply.metrics.keys() == set(FAKE_METRICS)
    ensemble = make_site(tmp_path / "ensemble", cohort, "ensemble")
    other = answer(ensemble)
    assert other.metrics == reply.metrics
    assert parameters_digest(other.generator) == kept(ensemble) == kept(undisturbed), "only what leaves differs"


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_round_broken_off_in_training_ends_in_the_same_generator(
    tmp_path: Path, cohort: Path, undisturbed: SiteFolder, step: int
) -> None:
    folder = make_site(tmp_path / "site", cohort)

    def stop(done: int, total: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalTrainer.open(folder.root, stop).train_round(asked(folder.study()))
    assert not folder.generator.exists()
    answer(folder)
    assert folder.generator.read_bytes() == undisturbed.generator.read_bytes()


def test_a_site_killed_between_its_journal_and_its_file_writes_the_file_when_asked_again(
    tmp_path: Path, cohort: Path, undisturbed: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_site(tmp_path / "site", cohort)

    def full(*_: object, **__: object) -> None:
        raise StorageError("the disk is full", expected="room", remedy="Make some.")

    with monkeypatch.context() as disk:
        disk.setattr(own_generator, "save_weights", full)
        with pytest.raises(StorageError):
            answer(folder)
    assert not folder.generator.exists()
    answer(folder)
    answer(folder)  # the answer was lost on its way: asked once more
    assert folder.generator.read_bytes() == undisturbed.generator.read_bytes()
    events = [entry.event for entry in read_journal(folder.journal)]
    assert events == ["roles-drawn", "scans-prepared", "generator-kept", "round-failed", "reply-left", "reply-left"]


def test_a_site_folder_of_a_study_without_weights_lets_none_pass_whatever_it_was_given(
    tmp_path: Path, cohort: Path
) -> None:
    assert '"generator": {}' in make_site(tmp_path / "site", cohort).egress.read_text()
    assert '"generator": {}' not in make_site(tmp_path / "other", cohort, "ensemble").egress.read_text()
