"""Studies that promise something, tiny, and the public start that they go out from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tiny_cohorts import tiny_scans, tiny_text, write_tiny_cohort

from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.device import choose_device
from fedphantom.common.exchange import RoundReply, RoundRequest
from fedphantom.common.gan.label_means import public_means
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.gan.public_start import first_parameters, write_public_start
from fedphantom.common.gan.training_state import new_state
from fedphantom.common.site_folder import PUBLIC_START, SiteFolder
from fedphantom.common.study import parse_study

EPSILON, DELTA = 8.0, 0.005


def promised_text(start: str, *, promise: str = "", **options: object) -> str:
    """A tiny study that makes a promise."""
    text = tiny_text(**options)  # type: ignore[arg-type]  # named as tiny_text's own
    training = f'[training]\nobjective = "adversarial"\nstart = "{start}"'
    tables = f'[privacy]\ndp = "patient-level"\n[privacy.promise]\nepsilon = {EPSILON}\ndelta = {DELTA}\n{promise}\n'
    return text.replace("[training]", training) + tables


def write_start(path: Path) -> str:
    """A public start of untrained networks; its SHA-256."""
    study, device = parse_study(tiny_text()), choose_device("cpu")
    scans = tiny_scans(4, seed=77)
    maps = [study_labels(scans.classes[row]) for row in range(len(scans))]
    return write_public_start(path, new_state(study, 3, device), maps, public_means(scans, study, device))


def study_labels(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class indices to the tiny study's label values."""
    return np.asarray([0, 1, 4], np.uint8)[np.asarray(classes)]


def promised_site(
    root: Path, *, patients: int = 12, promise: str = "", ledgers: Path | None = None, **options: object
) -> SiteFolder:
    """A site's folder for such a study, with a cohort of its own, never trained."""
    start = root / "start.safetensors"
    root.mkdir(parents=True, exist_ok=True)
    sha256 = write_start(start)
    text = promised_text(sha256, promise=promise, **options)
    cohort = write_tiny_cohort(root / "cohort", patients)
    spec = ParameterSpec.of(first_parameters(parse_study(text), start))
    return create_site_folder(root / "site", "site-a", cohort, text, spec, start=start, ledgers=ledgers)


def trainer(folder: SiteFolder) -> LocalTrainer:
    """As the site opens it."""
    return LocalTrainer.open(folder.root)


def request(folder: SiteFolder, number: int = 1) -> RoundRequest:
    """For the public start's generator, whatever the round."""
    study = folder.study()
    return RoundRequest(study.digest(), number, first_parameters(study, folder.root / PUBLIC_START))


def one_round(folder: SiteFolder, number: int = 1) -> RoundReply:
    """Answered by the site, opened anew."""
    return Site(folder, lambda root: trainer(SiteFolder.open(root))).train_round(request(folder, number))
