"""The smoke detector of the searches for copies: it holds only while each finds the copies that are its own to find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from learners import make_material

from fedphantom.privacy.attacks.copies import Copies
from fedphantom.privacy.attacks.interface import AuditedScans, foreground
from fedphantom.privacy.attacks.moved_copies import Searched
from fedphantom.privacy.audit import copy_control
from fedphantom.privacy.audit.copy_control import positive_copies_control
from fedphantom.privacy.evidence import CopiedLabels


def people(members: int = 20) -> AuditedScans:
    material = make_material(member=members)
    return material.audited(material.scans_of("member", "holdout"))


def found_among(scans: AuditedScans) -> tuple[bool, str]:
    judged = foreground(scans.images, scans.labels)
    control = positive_copies_control(scans, judged, np.random.default_rng(0))
    return control.ok, control.got


def test_copies_of_scans_and_label_maps_are_found_exact_noisy_mirrored_and_shifted() -> None:
    assert found_among(people()) == (True, "10 exact, 10 with noise, 10 moved, 10 moved label maps")


def test_too_few_members_to_plant_are_a_control_that_fails() -> None:
    assert found_among(people(9)) == (False, "fewer than 10 members to plant")


def never(scans: AuditedScans, judged: object, volumes: Any, **_: object) -> Searched:
    nothing = np.zeros((len(scans), len(volumes)), dtype=np.float32)
    return Searched(source=nothing > 0, likeness=nothing)


def unmirrored(scans: AuditedScans, judged: object, volumes: Any, **_: object) -> Searched:
    found = never(scans, judged, volumes)
    found.source[0, 1::2] = True
    return found


BLIND: dict[str, tuple[str, Callable[..., Any], str]] = {
    "moved copies": ("search_moved", never, "10 exact, 10 with noise, 0 moved, 10 moved label maps"),
    "mirrored copies": ("search_moved", unmirrored, "10 exact, 10 with noise, 5 moved, 10 moved label maps"),
    "label maps": ("label_copies", lambda *_, **__: CopiedLabels(0), "10 exact, 10 with noise, 10 moved, 0 moved"),
    "copies at all": ("confirmed_copies", lambda *_, **__: Copies(0, 0), "0 exact, 0 with noise, 0 moved, 10 moved"),
}


@pytest.mark.parametrize(("search", "instead", "got"), BLIND.values(), ids=BLIND.keys())
def test_a_search_that_is_blind_is_told(
    search: str, instead: Callable[..., Any], got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_control, search, instead)
    ok, told = found_among(people())
    assert not ok
    assert told.startswith(got)
