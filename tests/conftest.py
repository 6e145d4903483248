"""What the tests share."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from carried_rounds import Carried
    from consortium import Consortium
    from enrolment import Study
    from tiny_release import Releasable

    from fedphantom.common.gan.generation import LoadedGenerator

# Stand-ins that tests and the processes they start both import.
sys.path.insert(0, str(Path(__file__).parent / "fakes"))

# No test phones home, whoever imports Flower first.
os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}


LONGEST_FILES = (
    "test_tutorial",
    "test_readme",
    "test_demo",
    "test_full_size",
    "test_full_size_segmentation",
    "test_controls_audit",
    "test_site_release",
    "test_engines_agree",
    "test_flower_volumes",
    "test_null_audits",
)
"""Files that take a worker longest, the longest first: begun last, each would have the other worker wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; xdist keeps the order with ``--no-loadscope-reorder``."""
    place = {name: index for index, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session")
def release_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to release, with a release of its volumes and one of its weights beside it."""
    from tiny_release import Releasable  # late: most tests need no network

    made = Releasable.make(tmp_path_factory.mktemp("release") / "made")
    made.pack()
    made.pack(kind="weights", out=made.root / "weights", synthetic=None)
    return made.root


@pytest.fixture
def releasable(release_template: Path, tmp_path: Path) -> Releasable:
    """A fresh copy of the run, its cohorts and its audit, without releases."""
    from tiny_release import Releasable

    ignored = shutil.ignore_patterns("release", "weights")
    return Releasable(Path(shutil.copytree(release_template, tmp_path / "made", ignore=ignored)))


@pytest.fixture
def consortium(releasable: Releasable, tmp_path: Path) -> Consortium:
    """A release of two sites, whose officers have not approved it yet."""
    from consortium import consort

    return consort(tmp_path / "consortium", releasable, {})


@pytest.fixture(params=["release", "weights"])
def either_release(request: pytest.FixtureRequest, release_template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release_template / request.param, tmp_path / "packed"))


@pytest.fixture
def volumes_release(release_template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release_template / "release", tmp_path / "volumes"))


@pytest.fixture
def weights_release(release_template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release_template / "weights", tmp_path / "weights"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network from images to labels that is sure of what it sees."""
    from made_anatomy import STUDY, certain_network  # late: most tests need no network

    from fedphantom.common.gan.weights import generator_metadata, save_weights

    path = tmp_path_factory.mktemp("weights") / "generator.safetensors"
    save_weights(path, certain_network(), generator_metadata(STUDY, 1))
    return path


@pytest.fixture(scope="session")
def network(weights: Path) -> LoadedGenerator:
    """The same, loaded."""
    from made_anatomy import CPU

    from fedphantom.common.gan.generation import load_generator

    return load_generator(weights, CPU, "images-to-labels")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated run with its cohorts, to be audited and never written to."""
    from audited_run import make_run  # late: most tests need no network

    from fedphantom.common.study import RolesTable

    return make_run(tmp_path_factory.mktemp("run"), 10, RolesTable(test=0.1, control=0.2, audit=0.6))


@pytest.fixture
def spoilt(simulated: Path, tmp_path: Path) -> Path:
    """A copy of the run to spoil; cohorts stay where the sites know them."""
    for name in ("run", "synthetic"):
        shutil.copytree(simulated / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Flower's messages be made outside its processes."""
    from flwr.supercore.task_identity import TaskIdentity  # private: Message() reads its run and node from it

    for name, value in {"_run_id": 1, "_node_id": 0, "_task_id": 0}.items():
        monkeypatch.setattr(TaskIdentity, name, value)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the processes that Flower starts import the linear site."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "fakes"))


@pytest.fixture
def unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that ask not whether a power cut is survived: flushing takes longer than everything else in them."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def carried_template(tmp_path_factory: pytest.TempPathFactory) -> Carried:
    """Two hospitals that joined and approved, before the first round; to be copied."""
    from carried_rounds import Carried
    from linear_site import study_text

    return Carried.make(tmp_path_factory.mktemp("carried") / "made", study_text())


@pytest.fixture
def carried(carried_template: Carried, tmp_path: Path) -> Carried:
    return carried_template.copy(tmp_path / "carried")


@pytest.fixture(scope="session")
def three_template(tmp_path_factory: pytest.TempPathFactory) -> Carried:
    from carried_rounds import SITES, Carried
    from linear_site import study_text

    return Carried.make(tmp_path_factory.mktemp("three") / "made", study_text(), (*SITES, "site-c"))


@pytest.fixture
def three(three_template: Carried, tmp_path: Path) -> Carried:
    """Three hospitals, for a quorum of two."""
    return three_template.copy(tmp_path / "three")


@pytest.fixture(scope="session")
def made_coordinator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from enrolment import Study

    return Study.make(tmp_path_factory.mktemp("coordinator")).root


@pytest.fixture
def enrolling(made_coordinator: Path, tmp_path: Path) -> Study:
    """A coordinator without sites, of one's own."""
    from enrolment import Study

    return Study(Path(shutil.copytree(made_coordinator, tmp_path / "study")))


@pytest.fixture(scope="session")
def invited_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coordinator that invited site-a, a cohort for it, and the site's folder."""
    from enrolled_site import invited

    return invited(tmp_path_factory.mktemp("invited"))


@pytest.fixture
def invited(invited_site: Path, tmp_path: Path) -> Path:
    """A copy; the site's folder knows its cohort by the path in the original."""
    return Path(shutil.copytree(invited_site, tmp_path / "made"))
