"""Before a site's first round: is its cohort of use, its folder, and what may leave it."""

from __future__ import annotations

import json
from pathlib import Path

from ..common.atomic import for_owner_alone, write_atomic
from ..common.cohort import Cohort
from ..common.cohorts.check import check_cohort
from ..common.cohorts.roles import CoinRecord, draw_roles, load_roles_of
from ..common.counted import counted
from ..common.errors import ConfigError, DataError, about
from ..common.exchange import EPSILON, NOISED_STEPS, check_site_name
from ..common.gan.parameters import ParameterSpec
from ..common.keys import PRIVATE_KEY_NAME, generate_key
from ..common.labels.stated_origin import refuse_private_labels
from ..common.progress import Report
from ..common.site_folder import COINS, IDENTITY, PUBLIC_START, SITE_FILE, CoinSource, SiteFolder, roles_generator
from ..common.storage import making_errors, refuse_unwritable, storage_errors
from ..common.study import Study, parse_study
from ..privacy.dp.accounting import check_delta
from ..privacy.dp.feasibility import refuse_noise
from ..privacy.dp.plan import asked_feasibility
from .egress import FAKE_METRICS, EgressRule

LEDGER_WITHIN = (
    "The privacy ledger lies in the site's own folder: another folder for the same patients begins a new one, and their"
    " budget with it"
)
NAME_ANOTHER = (
    "While no round runs, move ledger.jsonl, ledger.jsonl.head and ledger.secret, those that are there, to a folder"
    ' that outlives this one, and name it in site.toml: ledger = "…".'
)


def check_site_cohort(
    root: Path, name: str, cohort: Cohort, study: Study, progress: Report, coins_from: CoinSource = "study"
) -> str:
    """Find that a site will have patients to train on, as its first round would find it; nothing is written.

    Args:
        root: The site's folder, made or not.
        name: The site's public name.
        cohort: The site's patients.
        study: What is to be trained.
        progress: (scans looked through, scans in all).
        coins_from: What its roles will be drawn from; of ``system`` one draw is tried.

    Returns:
        How many scans are left out and why, without naming one; empty where none is.

    Raises:
        DataError: no usable scan, or no training patient once the roles are drawn; it says why.
        ConfigError: a promise whose δ is 1/n or more for the site's training patients.
        PolicyRefused: a promise whose steps would be pure noise for so few patients; the folder's roles were drawn for
            other patients, or the study promises something and a network trained on private scans made label maps.
        VerificationFailed: its coin record is damaged or was edited.
    """
    report = check_cohort(cohort, study, progress)
    usable, coins = report.usable_or_refused(), root / COINS
    refuse_private_labels(usable, study)
    patients = usable.patient_ids
    roles = (
        load_roles_of(coins, patients)
        if coins.exists()
        else draw_roles(patients, study.roles, roles_generator(study, name, coins_from))
    )
    refuse_without_training(roles)
    if promise := study.privacy.promise:
        check_delta(promise.delta, len(roles.training_patients()))
        # Before any site has spent anything: one that can learn nothing would be refused in the round, others not.
        refuse_noise(asked_feasibility(study, len(roles.training_patients())))
    return report.left_out


def refuse_without_training(roles: CoinRecord) -> None:
    """Raise DataError where the roles leave nobody to train on."""
    if not roles.training_patients():
        raise DataError(
            f"no training patient once the roles of {counted(len(roles.roles), 'patient')} are drawn",
            expected="more patients, or smaller shares under [roles]",
            remedy="Run 'fedphantom cohort check' and look at [roles] in the study.",
        )


def create_site_folder(
    root: Path,
    name: str,
    cohort: Path,
    study_text: str,
    generator: ParameterSpec,
    *,
    start: Path | None = None,
    ledgers: Path | None = None,
    coins_from: CoinSource = "study",
) -> SiteFolder:
    """Make the folder, or find it as an earlier call with the same arguments left it.

    Args:
        root: The folder.
        name: The site's public name.
        cohort: The site's patients.
        study_text: TOML; copied, so that nobody changes the study under the site.
        generator: Names and shapes of the study's generator, which may leave if the study shares weights at all.
        start: The public start file, where the study goes out from one; copied.
        ledgers: Folder in which each site has a folder with its privacy ledger, which outlives runs; by default the
            ledger lies in the site's own folder.
        coins_from: What the site's roles are drawn from.

    Raises:
        ConfigError: the study does not parse or declares no weight for the site, the name is not allowed, or the
            folder belongs to another site, cohort or study.
        OutputTaken: a file where a folder of the ledger's would be.
        StorageError: the disk is full, read-only or forbidden, for the folder or for its ledger.
    """
    check_site_name(name)
    study = parse_study(study_text)
    if (root / SITE_FILE).exists():
        folder = SiteFolder.open(root)
        same = {
            "site": folder.name == name,
            "cohort": folder.cohort.resolve() == cohort.resolve(),
            "study": folder.study().digest() == study.digest(),
            "ledger": ledgers is None or folder.ledger.resolve() == (ledgers / name).resolve(),
            "source of coins": folder.coins_from == coins_from,
        }
        if not all(same.values()):
            raise ConfigError(
                f"the folder of site '{name}' belongs to another"
                f" {' and another '.join(what for what, unchanged in same.items() if not unchanged)}",
                expected="the site, cohort, privacy ledger (at the same paths) and study it was made for",
                remedy="Give them unchanged to go on, or choose another folder for this run.",
            )
        return folder
    if ledgers is not None and study.privacy.promise:
        with about("the privacy ledger"):  # before anything is made, and long before anything is reserved
            refuse_unwritable(ledgers / name)
    with storage_errors(), making_errors():
        root.mkdir(parents=True, exist_ok=True)
    for_owner_alone(root)  # prepared scans and the discriminator lie below it
    write_atomic(root / "study.toml", study_text.encode())
    if study.from_public_start:
        # Here, so that a node which answers without training does not wait for torch.
        from ..common.gan.public_start import read_public_start

        with about("--start"):
            read_public_start(start or Path(PUBLIC_START), study)
        write_atomic(root / PUBLIC_START, (start or Path(PUBLIC_START)).read_bytes())
    shared = generator if study.federation.weights_leave else ParameterSpec(())
    metrics = (*FAKE_METRICS, EPSILON, NOISED_STEPS) if study.privacy.promise else FAKE_METRICS
    rule = EgressRule(shared, metrics, study.federation.weight_of(name), study.federation.transport)
    write_atomic(root / "egress.json", rule.to_json().encode())
    if study.federation.secure_aggregation and not (root / IDENTITY / PRIVATE_KEY_NAME).exists():
        generate_key(root / IDENTITY)
    # Last: a folder with a site file is complete.
    where, own = cohort.resolve(), root.resolve()
    place = where.relative_to(own) if where.is_relative_to(own) else where  # so that a run may be moved
    lines = {"name": name, "cohort": str(place), "study": "study.toml"}
    if ledgers is not None:
        lines["ledger"] = str((ledgers / name).resolve())
    if coins_from != "study":
        lines["coins_from"] = coins_from
    text = "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in lines.items())
    write_atomic(root / SITE_FILE, text.encode())
    return SiteFolder.open(root)


def read_egress_rule(folder: SiteFolder) -> EgressRule:
    """What may leave. Raises ConfigError when the file is missing or malformed."""
    try:
        text = folder.egress.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    return EgressRule.from_json(text)
