"""Control networks outlive an audit that was broken off, for the next one alone, and no audit that ended."""

from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audited_run import SIZES, audit
from torch import nn

from fedphantom.common.gan.training import train_from_scratch
from fedphantom.common.gan.training_state import TrainingState
from fedphantom.privacy.audit import control_training, kept_networks
from fedphantom.privacy.audit.kept_networks import KeptNetworks

ROWS = np.arange(3)


@pytest.fixture(autouse=True)
def _every_training_is_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_networks, "WORTH_KEEPING_S", 0.0)


def layer(value: float) -> nn.Linear:
    made = nn.Linear(2, 1)
    with torch.no_grad():
        made.weight.fill_(value)
    return made


def ask(kept: KeptNetworks, value: float, kind: str = "control", rows: np.ndarray = ROWS, steps: int = 5) -> float:
    """The weight of the layer that comes of it; ``value`` where it is trained now."""
    made = kept.of((kind, rows, steps, 1), lambda: layer(0.0), lambda: layer(value), lambda one: {"it": one})
    return float(made.weight.detach()[0, 0])


def test_what_was_trained_once_is_read_again_and_nothing_else_is_taken_for_it(tmp_path: Path) -> None:
    kept = KeptNetworks(tmp_path / "controls", "generator and coins")
    assert ask(kept, 1.0) == ask(kept, 2.0) == 1.0
    assert ask(kept, 3.0, kind="memoriser") == 3.0
    assert ask(kept, 4.0, rows=np.arange(4)) == 4.0
    assert ask(kept, 5.0, steps=6) == 5.0
    assert ask(KeptNetworks(tmp_path / "controls", "another generator"), 6.0) == 6.0
    kept.forget()
    assert not (tmp_path / "controls").exists()
    assert ask(kept, 7.0) == 7.0


def test_a_damaged_file_is_trained_again(tmp_path: Path) -> None:
    kept = KeptNetworks(tmp_path, "x")
    ask(kept, 1.0)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert ask(kept, 2.0) == ask(kept, 3.0) == 2.0


def test_they_are_for_their_owner_alone(tmp_path: Path) -> None:
    kept = KeptNetworks(tmp_path / "controls", "x")
    ask(kept, 1.0)
    (file,) = (tmp_path / "controls").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_what_takes_no_time_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_networks, "WORTH_KEEPING_S", 60.0)
    ask(KeptNetworks(tmp_path, "x"), 1.0)
    assert not list(tmp_path.iterdir())


def test_an_audit_goes_on_with_what_a_broken_off_one_trained_and_finds_the_same(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(root: Path) -> None:
        def stopped(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("fedphantom.privacy.audit.audit.Battery.calibrate", stopped)
            with pytest.raises(KeyboardInterrupt):
                audit(root, simulated)

    going_on, anew = tmp_path / "going on", tmp_path / "anew"
    for root in (going_on, anew):
        for name in ("run", "synthetic"):
            shutil.copytree(simulated / name, root / name)
        broken_off(root)
        assert list((root / "audit" / "controls").iterdir())
    KeptNetworks(anew / "audit" / "controls", "").forget()

    trained: list[int] = []

    def counted(*given: Any, **options: Any) -> TrainingState:
        trained.append(options["steps"])
        return train_from_scratch(*given, **options)

    monkeypatch.setattr(control_training, "train_from_scratch", counted)
    found = audit(going_on, simulated)
    assert trained == [1, 3]  # how long a step takes is asked anew
    assert found == audit(anew, simulated)
    assert len(trained) > 4
    assert found["audit_number"] == 1
    assert not (going_on / "audit" / "controls").exists()


def test_nothing_of_a_shadow_lies_on_the_disk_but_its_errors(
    simulated: Path, spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedphantom.privacy.audit.audit.Battery.calibrate", stopped)
    with pytest.raises(KeyboardInterrupt):
        audit(spoilt, simulated, replace(SIZES, shadows=4))
    assert len(list((spoilt / "audit" / "shadows").iterdir())) == 4
    kept = len(list((spoilt / "audit" / "controls").iterdir()))
    assert kept == 2  # the reference and the negative control; too few members to memorise
