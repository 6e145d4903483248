"""A simulated run of two sites to audit, and the audit of it at the smallest size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.device import choose_device
from fedphantom.common.federation import FederationTable
from fedphantom.common.gan.generation import generate_cohort, load_generator, numpy_parameters
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.journal import read_journal
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.phantom.patients import write_phantom_cohort
from fedphantom.common.site_folder import site_folders
from fedphantom.common.study import NetworkTable, PublicLabelsTable, RolesTable, TrainingTable
from fedphantom.common.study_template import study_for, to_toml
from fedphantom.privacy.audit.run import AuditSizes, audit_run_folder
from fedphantom.privacy.policy import TIERS
from fedphantom.server.simulation import simulate

SIZES = AuditSizes(steps=2, negative_seeds=1, draws=2, blind_permutations=5)


SHORT = TrainingTable(rounds=1, local_steps=2)


def make_run(
    root: Path,
    patients: int,
    roles: RolesTable,
    training: TrainingTable = SHORT,
    federation: FederationTable | None = None,
    mark: Callable[[Path], None] = lambda cohort: None,
) -> Path:
    """A simulated run of two sites, each with these patients, and synthetic volumes beside it.

    ``mark`` is given each site's cohort before anybody reads it.
    """
    for seed, name in enumerate(("site-a", "site-b")):
        write_phantom_cohort(root / name, patients, spacing_mm=12.0, seed=seed)
        mark(root / name)
    write_phantom_cohort(root / "public", 4, spacing_mm=12.0, seed=9)
    study = study_for(
        read_cohort(root / "site-a"), name="audited", seed=4, public_labels=PublicLabelsTable(source="atlas")
    ).model_copy(
        update={
            "network": NetworkTable(preset="tiny"),
            "training": training,
            "roles": roles,
            "federation": federation or FederationTable(),
        }
    )
    run = root / "run"
    simulate(
        to_toml(study),
        {name: root / name for name in ("site-a", "site-b")},
        run,
        engine="local",
        prepare_site=create_site_folder,
        open_site=lambda folder: Site(site_folders(folder)[0], LocalTrainer.open),
        initial=lambda study: numpy_parameters(make_generator(study, study.seed)),
        progress=lambda record: None,
    )
    sampler = make_label_sampler(study, None)
    generator = load_generator(run / "generator.safetensors", choose_device("cpu"))
    generate_cohort(generator, [sampler.sample(1, index) for index in range(4)], root / "synthetic", 1)
    return root


def audit(
    root: Path, made: Path, sizes: AuditSizes = SIZES, keys: Sequence[Ed25519PrivateKey] = (), **told: Any
) -> dict[str, object]:
    """The run's audit; ``told`` are its callbacks."""
    public, policy = read_cohort(made / "public"), TIERS["controlled"]
    return audit_run_folder(
        root / "run", root / "synthetic", public, root / "audit", sizes, policy, keys=keys, device="cpu", **told
    )


def events(root: Path, site: str) -> list[tuple[str, object]]:
    entries = read_journal(root / "run" / "sites" / site / "journal.jsonl")
    return [(e.event, e.facts.get("number")) for e in entries if e.event.startswith("audit")]


def audit_site(simulated: Path, spoilt: Path, site: str, named_by: Path | None = None) -> dict[str, Any]:
    """A site's own audit of the generator that all trained, into ``audit`` beside the run's copy."""
    return audit_run_folder(
        spoilt / "run" / "sites" / site,
        spoilt / "synthetic",
        read_cohort(simulated / "public"),
        spoilt / "audit",
        SIZES,
        TIERS["internal"],
        generator_file=spoilt / "run" / "generator.safetensors",
        named_by_file=named_by,
        device="cpu",
    )
