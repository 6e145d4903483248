"""A tiny run whose synthetic scans its own generator painted, the releases packed from it, and hands to spoil them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from officers import APPROVAL_KEYS, OFFICERS, policy_text

from fedphantom.common.cohorts.bids_writer import BidsWriter
from fedphantom.common.device import choose_device
from fedphantom.common.errors import FedPhantomError, VerificationFailed
from fedphantom.common.gan.generation import generate_cohort, initial_parameters, load_generator
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.gan.weights import generator_metadata, load_weights, save_weights, study_of
from fedphantom.common.installed_code import installed_code_digest
from fedphantom.common.labels.choice import declare_sources, newly_sampled
from fedphantom.common.signing import sign, verify
from fedphantom.common.study import Study, parse_study
from fedphantom.privacy.evidence import ATTACKS, BATTERY, OUTLIERS, REQUIRED_ATTACKS, REQUIRED_CONTROLS
from fedphantom.privacy.policy import SitePolicy, parse_policy
from fedphantom.privacy.release.content import MANIFEST
from fedphantom.privacy.release.label_carriers import LabelCarriers
from fedphantom.privacy.release.pack import ReleaseReport, pack, verify_release
from fedphantom.privacy.synthetic_digest import synthetic_digest

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = [KEY.public_key()]

STUDY = """
name = "tiny"
seed = 1
channels = ["T1", "T1c"]
labels = { background = 0, tissue = 1 }
[grid]
shape = [8, 16, 24]
spacing_mm = [1.875, 1.2, 0.9375]
[public_labels]
source = "folder"
name = "open balls"
licence = "CC0-1.0"
[network]
preset = "tiny"
[federation]
"""
STUDY += f"approval_keys = {list(APPROVAL_KEYS)}\n"
TRIED = {name: ATTACKS.get(name.removesuffix(OUTLIERS), "none") for name in REQUIRED_ATTACKS["weights"]}
LEAK = {"auc": 0.9, "rejects": True, "p_value": 1e-4}


def release_study() -> Study:
    return parse_study(STUDY)


def an_attack(identifier: str, model: str, auc: float = 0.52, **changes: Any) -> dict[str, Any]:
    return {
        "id": identifier,
        "threat_model": model,
        "auc": auc,
        "auc_ci": [max(auc - 0.05, 0), min(auc + 0.05, 1)],
        "auc_lower95": max(auc - 0.04, 0),
        "auc_upper95": min(auc + 0.04, 1),
        "tpr": [{"fpr": 0.0, "tpr": 0.0, "ci": [0.0, 0.04], "resolvable": True, "fpr_bound": 0.03}],
        "eps_lower_bound": 0.0,
        "p_value": 0.4,
        "no_false_alarm_p_value": 1.0,
        "rejects": False,
        "n_member": 120,
        "n_holdout": 120,
    } | changes


NO_TROUBLE = {
    "audit_number": 1,
    "negative_seeds": 3,
    "target_steps": 100,
    "control_steps": 100,
    "confirmed_copies": 0,
    "copied_members": 0,
    "copied_labels": {"released": 0, "member": 0, "holdout": 0},
    "canary_excess": False,
}
"""Of an audit's result: a first audit, whole, that found no copy."""


def a_control(identifier: str, ok: bool = True) -> dict[str, Any]:
    return {"id": identifier, "required": "|AUC − .5| ≤ 1.96·SE", "got": "0.51", "ok": ok}


def rows(**changed: dict[str, Any]) -> list[dict[str, Any]]:
    return [changed.get(name, an_attack(name, model)) for name, model in TRIED.items()]


@dataclass(frozen=True)
class Releasable:
    """A run, its public and synthetic cohorts and its audit, made to be spoiled."""

    root: Path

    @classmethod
    def make(cls, root: Path, study: Study | None = None) -> Releasable:
        """Two scans, of two of the three public label maps that the run declares."""
        out, study = cls(root), study or release_study()
        grid = study.volume_grid()
        with BidsWriter(out.public, grid, study.channels, study.labels, "public", synthetic=False) as writer:
            for number, radius in enumerate((0.6, 0.7, 0.8)):
                writer.add(f"p{number}", np.ones((2, *grid.shape), np.float32), ellipsoid(grid.shape, radius), {})
        save_weights(out.generator, initial_parameters(study), generator_metadata(study, study.training.rounds))
        labels = newly_sampled(study, 2, out.public, seed=0)
        assert labels.sources is not None
        declare_sources(out.run, labels.sources)
        generate_cohort(load_generator(out.generator, choose_device("cpu")), labels.maps, out.synthetic, seed=0)
        out.write_audit()
        return out

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def generator(self) -> Path:
        return self.run / "generator.safetensors"

    @property
    def generator_sha256(self) -> str:
        return hashlib.sha256(self.generator.read_bytes()).hexdigest()

    @property
    def declared(self) -> Path:
        return self.run / "public-labels.json"

    @property
    def public(self) -> Path:
        return self.root / "public"

    @property
    def synthetic(self) -> Path:
        return self.root / "synthetic"

    @property
    def audit(self) -> Path:
        return self.root / "audit.json"

    @property
    def release(self) -> Path:
        return self.root / "release"

    def write_audit(self, **changes: Any) -> None:
        """An audit whose figures would allow a PASS for any kind of release, but not for the public tier."""
        content = {
            "battery": BATTERY,
            "verdict": "INCONCLUSIVE",
            "tier": "controlled",
            "release": "weights",
            "generator_sha256": self.generator_sha256,
            "parameters_sha256": parameters_digest(load_weights(self.generator)[0]),
            "channels": list(study_of(load_weights(self.generator)[1]).channels),
            "synthetic_sha256": synthetic_digest(self.synthetic),
            "code_sha256": installed_code_digest(),
            "attacks": rows(),
            "controls": [a_control(name) for name in REQUIRED_CONTROLS["weights"]],
            "counts": {"member": 120, "holdout": 120},
            **NO_TROUBLE,
            "reasons": ["Read them."],
            "generator_named_by": "the coordinator's journal",
        }
        self.audit.write_text(json.dumps(content | changes))

    def pack(self, **changes: Any) -> ReleaseReport:
        options: dict[str, Any] = {
            "out": self.release,
            "kind": "volumes",
            "tier": "internal",
            "key": KEY,
            "audit": self.audit,
            "synthetic": self.synthetic,
            "carriers": LabelCarriers({"tissue": 120}),
            "created": datetime(2026, 11, 22, 12, 0, tzinfo=UTC),
        }
        options |= changes
        if options["tier"] != "internal":
            options.setdefault("policies", policies(options["tier"]))
        return pack(self.run, **options)

    def scans(self) -> list[Path]:
        """The first channel of every synthetic scan."""
        return sorted(path for path in self.synthetic.rglob("*_T1w.nii.gz") if "gadolinium" not in path.name)

    def sources_used(self) -> set[str]:
        """Digests of the public label maps that the sidecars name."""
        sidecars = (json.loads(path.read_text()) for path in self.synthetic.rglob("*_dseg.json"))
        return {sidecar["LabelChain"]["source"]["sha256"] for sidecar in sidecars}

    def edit_sidecar(self, change: Callable[[dict[str, Any]], None]) -> None:
        path = self.scans()[1]
        edit_json(path.with_name(path.name.replace(".nii.gz", ".json")), change)


def policies(tier: str) -> tuple[SitePolicy, ...]:
    """Of both sites that the study names."""
    return tuple(parse_policy(policy_text(site, f'tier = "{tier}"')) for site in OFFICERS)


def ellipsoid(shape: tuple[int, int, int], radius: float) -> NDArray[np.uint8]:
    """Tissue within this share of the way from the grid's centre to its faces."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return (np.linalg.norm(np.stack(axes), axis=0) < radius).astype(np.uint8)


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def statement_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(verify((folder / MANIFEST).read_bytes(), TRUSTED))
    return content


def sign_again(folder: Path, change: Callable[[dict[str, Any]], None] = lambda statement: None) -> None:
    """What a dishonest or careless holder of the trusted key could do."""
    statement = statement_of(folder)
    statement["subject"] = [
        {
            "name": path.relative_to(folder).as_posix(),
            "digest": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        }
        for path in files_of(folder)
        if path.name != MANIFEST
    ]
    statement["subject"].sort(key=lambda subject: subject["name"])
    change(statement)
    (folder / MANIFEST).write_bytes(sign(json.dumps(statement).encode(), KEY))


def assert_refused(folder: Path, match: str | None = None, error: type[FedPhantomError] = VerificationFailed) -> None:
    with pytest.raises(error, match=match) as caught:
        verify_release(folder, TRUSTED)
    assert caught.value.exit_code == 5


def in_predicate(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda statement: statement["predicate"].update(changes)
