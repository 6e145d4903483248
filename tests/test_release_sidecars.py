"""Released sidecars name a public source and nothing private."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_release import Releasable, assert_refused, edit_json, sign_again

from fedphantom.common.cohorts.roles import CoinRecord, draw_roles
from fedphantom.common.errors import PolicyRefused, VerificationFailed
from fedphantom.common.labels.chain import LabelSource, PublicSources
from fedphantom.common.labels.choice import declare_sources
from fedphantom.common.study import RolesTable


def _change_sidecar(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda sidecar: sidecar.update(changes)


UNFIT: dict[str, Callable[[dict[str, Any]], None]] = {
    "a patient's identifier": _change_sidecar(PatientID="DOE^JANE"),
    "a date": _change_sidecar(AcquisitionDate="19700101"),
    "not said to be synthetic": _change_sidecar(Synthetic=False),
    "synthetic left out": lambda sidecar: sidecar.pop("Synthetic"),
    "another generator": _change_sidecar(GeneratorSha256="0" * 64),
    "text among the parameters": lambda s: s["LabelChain"]["steps"][0]["parameters"].update(note="DOE^JANE 1970"),
    "text as a parameter's name": lambda s: s["LabelChain"]["steps"][0]["parameters"].update({"sub-0042": 1}),
    "text deep among the parameters": lambda s: s["LabelChain"]["steps"][0]["parameters"].update(scale=[[1, "id 7"]]),
}
PRIVATE: dict[str, Callable[[dict[str, Any]], None]] = {
    "no chain": lambda sidecar: sidecar.pop("LabelChain"),
    "an empty chain": _change_sidecar(LabelChain={}),
    "a private source": lambda s: s["LabelChain"]["source"].update(kind="private"),
    "an undeclared source": lambda s: s["LabelChain"]["source"].update(sha256="f" * 64),
    "a declared digest under another name": lambda s: s["LabelChain"]["source"].update(name="my atlas"),
    "a declared digest under another licence": lambda s: s["LabelChain"]["source"].update(licence="mine"),
    "an unknown step": lambda s: s["LabelChain"]["steps"][0].update(name="taken-from-patient"),
    "a step with more in it": lambda s: s["LabelChain"]["steps"][0].update(origin="site-a"),
}


@pytest.mark.parametrize("change", UNFIT.values(), ids=UNFIT.keys())
def test_an_unfit_sidecar_is_refused(releasable: Releasable, change: Callable[[dict[str, Any]], None]) -> None:
    releasable.edit_sidecar(change)
    with pytest.raises(VerificationFailed) as caught:
        releasable.pack()
    assert caught.value.exit_code == 5
    assert "DOE" not in str(caught.value)
    assert not releasable.release.exists()


@pytest.mark.parametrize("change", PRIVATE.values(), ids=PRIVATE.keys())
def test_a_label_map_without_a_public_chain_is_never_released(
    releasable: Releasable, change: Callable[[dict[str, Any]], None]
) -> None:
    releasable.edit_sidecar(change)
    with pytest.raises(PolicyRefused) as caught:
        releasable.pack()
    assert caught.value.exit_code == 4
    assert not releasable.release.exists()


@pytest.mark.parametrize("change", (UNFIT | PRIVATE).values(), ids=(UNFIT | PRIVATE).keys())
def test_a_sidecar_edited_and_signed_is_refused(
    volumes_release: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    edit_json(next(volumes_release.rglob("*_dseg.json")), change)
    sign_again(volumes_release)
    assert_refused(volumes_release)


def test_a_volume_without_a_sidecar_counts_as_private(releasable: Releasable) -> None:
    next(releasable.synthetic.rglob("*_T1w.json")).unlink()
    with pytest.raises(PolicyRefused, match="counts as private"):
        releasable.pack()


def test_a_declared_source_must_be_public(releasable: Releasable) -> None:
    private = LabelSource(kind="private", name="hmac", licence="none", sha256="a" * 64)
    declare_sources(releasable.run, PublicSources(sources=(private,)))
    for kind in ("volumes", "weights"):
        with pytest.raises(PolicyRefused, match="private one"):
            releasable.pack(kind=kind)


def test_a_run_that_declares_no_public_source_releases_nothing(releasable: Releasable) -> None:
    releasable.declared.write_text('{"sources": []}')
    with pytest.raises(PolicyRefused, match="empty"):
        releasable.pack(kind="weights")


def test_a_patients_identifier_in_a_packed_text_stops_the_release(releasable: Releasable) -> None:
    record: CoinRecord = draw_roles(["JD-0042", "JD-0043", "7"], RolesTable(), np.random.default_rng(0))
    (releasable.run / "sites" / "a").mkdir(parents=True)
    (releasable.run / "sites" / "a" / "coins.json").write_text(record.to_json())
    releasable.pack()
    shutil.rmtree(releasable.release)
    releasable.write_audit(reasons=["The copy of JD-0042 was removed."])
    with pytest.raises(VerificationFailed, match="identifier") as caught:
        releasable.pack()
    assert "0042" not in str(caught.value)
