"""A release: a signed folder of synthetic volumes or generator weights that anyone can verify offline.

``manifest.dsse.json`` holds a signed in-toto statement that names every other file with its hash.
Packing is here, verification in :mod:`.release_folder`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...common.atomic import atomic_folder
from ...common.cohorts.bids_writer import special_channels
from ...common.cohorts.layouts.bids import DESCRIPTION, LABEL_LOOKUP
from ...common.counted import counted
from ...common.errors import DataError, PolicyRefused, VerificationFailed, about
from ...common.labels.chain import LabelChain, LabelSource, PublicSources
from ...common.labels.recipe import Recipe
from ...common.signing import sign
from ...common.study import Study
from ...common.volumes.face import NOT_SHOWN, FaceFinding, painted_face_finding
from ...common.volumes.grid import Grid
from ..audit.small_cells import travelling
from ..cohort_facts import CohortFacts
from ..dp.statement import NONE
from ..evidence import ReleaseKind
from ..finding import WORDING
from ..label_making import LabelMaking
from ..policy import SitePolicy, Tier
from ..statement import ReleasePredicate, ReleaseStatement, lacks_licence, may_be_shared
from ..synthetic_digest import VOLUME_ENDING, digest_of_hashes
from ..synthetic_files import image_keys, synthetic_volumes
from .clean_nifti import check_clean_nifti, clean_labels, clean_voxels
from .content import (
    AUDIT,
    COHORT,
    DATASHEET,
    GENERATOR,
    IGNORED,
    LABEL_KEY,
    MANIFEST,
    PUBLIC_LABELS,
    README,
    STUDY,
    check_weights,
)
from .datasheet import render_datasheet
from .evaluation import FILE as EVALUATION
from .evaluation import EvaluationExtract, evaluation_extract
from .folder import ReleaseReport, verify_folder, verify_release
from .label_carriers import LabelCarriers, refuse_rare_labels
from .needed_file import read_needed
from .permission import permitted, refuse_reader
from .readme import render_readme
from .sidecar import parse_public_sources, parse_sidecar
from .tables import encode_bids_ignore, encode_description, encode_json, encode_labels, encode_participants
from .text_scan import TextScan, days_told

__all__ = ["ReleaseReport", "pack", "verify_release"]

_CONSTANT_TIME = 946_684_800
"""2000-01-01 UTC: modification time of every file in a release; the least that every archive format can hold."""


def pack(
    run: Path,
    out: Path,
    *,
    kind: ReleaseKind,
    tier: Tier,
    key: Ed25519PrivateKey,
    audit: Path | None,
    synthetic: Path | None = None,
    evaluations: Sequence[Path] = (),
    policies: Sequence[SitePolicy] = (),
    carriers: LabelCarriers | None = None,
    allow_faces: bool = False,
    created: datetime | None = None,
    before: Callable[[ReleaseReport], None] = lambda report: None,
) -> ReleaseReport:
    """Pack, sign and verify a release; it appears whole or not at all.

    Args:
        run: Folder with ``generator.safetensors`` and ``public-labels.json``: a run's, or a site's with a generator of
            its own. Coin records and site files found in it give the identifiers and names that no packed text may
            contain.
        out: A new or empty folder.
        kind: What is released.
        tier: Whom for.
        key: The signer's.
        audit: Result file of ``audit run``.
        synthetic: BIDS cohort of synthetic volumes, for kind ``volumes``.
        evaluations: Result files of ``evaluate`` on the audited volumes, one of a protocol.
        policies: Of the sites that stand behind it: one of a generator that a site trained alone, every contributing
            site's of an average. None only for a release inside the study.
        carriers: Of each structure; None where nobody counted, as an internal release does not need.
        allow_faces: Whether volumes may leave that are not shown to be without a face.
        created: When; now, if left out.
        before: Told what is packed before it appears.

    Raises:
        PolicyRefused: no audit, a verdict or audit that does not permit this tier and kind, a label map that
            does not come from a declared public source, or one to be published whose owner states no licence,
            an evaluation on too few patients, weights of a study that shares volumes alone, or a site's policy that
            stands against it, is missing, or is one too many, a structure that too few training patients carry, a
            volume in which a face may be, or what was released before and withdrawn.
        ConfigError, SignatureInvalid: a policy by which nobody can approve it: see :mod:`.gate`.
        VerificationFailed: the audit or a volume belongs to another generator, audit or evaluation to other volumes,
            the audit's figures do not bear out its verdict, or a file carries more than it may.
        DataError: a needed file is missing or unreadable.
        StorageError: ``out`` holds something already, or the disk is full, read-only or forbidden.
    """
    generator = read_needed(run / GENERATOR, "generator of the run")
    generator_sha256 = hashlib.sha256(generator).hexdigest()
    study, promised, parameters = check_weights(generator)
    refuse_reader(study)
    if kind == "weights" and not study.federation.weights_leave:
        raise PolicyRefused(
            "weights of a study whose sites share volumes alone",
            expected="a release of volumes: under this study no weights leave a site",
            remedy="Release volumes with '--kind volumes'; sites that may share weights need a study that says so.",
        )
    public = parse_public_sources(
        read_needed(
            run / PUBLIC_LABELS,
            "list of public label sources beside the generator",
            "Paint the volumes with the very generator file in this folder: 'fedphantom generate' writes it there.",
        )
    )
    now = (created or datetime.now(UTC)).astimezone(UTC)
    extract, claim, sites = permitted(run, generator_sha256, study, parameters, kind, tier, audit, policies, now.date())
    fewest = refuse_rare_labels(carriers, policies, tier)
    evaluation = _evaluation(evaluations, extract.synthetic_sha256)
    packed = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    scan = TextScan.of(run, study, public, (packed, *days_told(claim, sites)))

    making, facts = LabelMaking(), None
    with atomic_folder(out) as folder:
        writer = _Writer(folder, scan)
        if kind == "weights":
            writer.add(GENERATOR, generator)
            used = public
        elif synthetic is None:
            raise DataError(
                "no synthetic cohort", expected="one for a release of volumes", remedy="Name it with '--synthetic'."
            )
        else:
            with about("the synthetic cohort"):
                used, making, facts = _add_cohort(
                    writer, synthetic, study, generator_sha256, public, allow_faces=allow_faces
                )
            volumes = (digest for name, digest in writer.files.items() if name.endswith(VOLUME_ENDING))
            if digest_of_hashes(volumes) != extract.synthetic_sha256:
                raise VerificationFailed(
                    "the audit of another synthetic cohort",
                    expected="the very volumes and label maps that were audited",
                    remedy="Name the audited cohort with '--synthetic', or audit this one.",
                )
            if lacks_licence(kind, tier, used.sources):
                raise PolicyRefused(
                    "label maps whose owner states no licence",
                    expected="a licence for every source of label maps that are to be published",
                    remedy="Write it into the public cohort's description ('License' in dataset_description.json or"
                    " 'licence' in dataset.json) and generate the volumes anew, or choose a narrower tier.",
                )
        predicate = ReleasePredicate(
            kind=kind,
            tier=tier,
            audit_permits_sharing=may_be_shared(tier, claim.verdict),
            study_digest=study.digest(),
            generator_sha256=generator_sha256,
            dp=promised or NONE,
            audit=claim,
            evaluation=evaluation.claim() if evaluation else None,
            sharing=study.federation.sharing,
            one_site=study.federation.alone,
            approving_sites=sites,
            label_carriers_min=fewest,
            label_sources=used.sources,
            label_making=making,
            cohort=facts,
            created=packed,
            software=f"fedphantom {version('fedphantom')}",
            wording=WORDING,
        )
        writer.add(AUDIT, travelling(extract).encode())
        if evaluation:
            writer.add(EVALUATION, evaluation.encode())
        writer.add(PUBLIC_LABELS, encode_json(used.model_dump(mode="json")))
        writer.add(README, render_readme(predicate).encode())
        if facts is not None:
            writer.add(STUDY, study.canonical().encode())
            writer.add(DATASHEET, render_datasheet(predicate).encode())
        statement = ReleaseStatement.about(writer.files, predicate)
        writer.check("statement.json", statement.encode())
        writer.add(MANIFEST, sign(statement.encode(), key))
        writer.settle()
        report = verify_folder(folder, [key.public_key()])
        before(report)
    return report


def _evaluation(files: Sequence[Path], audited: str | None) -> EvaluationExtract | None:
    """What may leave of these result files; None without one."""
    if not files:
        return None
    return evaluation_extract([read_needed(file, "evaluation result") for file in files], audited or "")


def _add_cohort(
    writer: _Writer, cohort: Path, study: Study, generator_sha256: str, public: PublicSources, *, allow_faces: bool
) -> tuple[PublicSources, LabelMaking, CohortFacts]:
    """Copy every volume under a random name beside a fresh sidecar.

    Returns:
        What its label maps were made from, how, and what the cohort consists of.
    """
    volumes = synthetic_volumes(cohort, study)
    used: set[LabelSource] = set()
    recipes: set[Recipe] = set()
    chains: list[LabelChain] = []
    # From the operating system and kept nowhere: a release's names tell nothing, not even an order.
    renamed = {subject: f"sub-{secrets.token_hex(8)}" for subject in volumes}
    stripped, faces, grid = 0, 0, study.volume_grid()
    for name, of in volumes.items():
        subject, labels = renamed[name], read_needed(of[LABEL_KEY], "synthetic label map")
        for key, path in of.items():
            content = read_needed(path, "synthetic volume")
            grid = check_clean_nifti(content, is_label_map=key == LABEL_KEY)
            try:
                beside = read_needed(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), "sidecar of a volume")
            except DataError:
                raise PolicyRefused(
                    "a volume without a sidecar, whose label map therefore counts as private",
                    expected="a sidecar with a label chain beside every volume",
                    remedy="Generate the volumes anew with 'fedphantom generate'.",
                ) from None
            sidecar = parse_sidecar(beside, generator_sha256, public)
            used.update(sidecar.label_chain.sources())
            recipes.update(sidecar.label_chain.recipes())
            if key == LABEL_KEY:
                chains.append(sidecar.label_chain)
                sidecar = sidecar.model_copy(update={"skull_stripped": None})
            else:
                finding = _face_finding(content, labels, grid)
                faces += finding == NOT_SHOWN
                sidecar = sidecar.model_copy(update={"skull_stripped": finding == "skull-stripped"})
                stripped += sidecar.skull_stripped is True
            stem = f"{COHORT}/{subject}/anat/{subject}_{key}"
            writer.add(f"{stem}.nii.gz", content)
            writer.add(f"{stem}.json", sidecar.encode())
    if faces and not allow_faces:
        raise PolicyRefused(
            f"{counted(faces, 'image')} of a head that is neither skull-stripped nor defaced, as far as voxels show",
            expected="volumes in which no face can be",
            remedy="Train on stripped or defaced scans, or say with --allow-faces why faces may be there.",
        )
    channels = image_keys(study.channels)
    writer.add(f"{COHORT}/{DESCRIPTION}", encode_description(special_channels(study.channels)))
    writer.add(f"{COHORT}/participants.tsv", encode_participants(renamed.values()))
    writer.add(f"{COHORT}/{LABEL_LOOKUP}", encode_labels(study.labels))
    if ignored := encode_bids_ignore(channels):
        writer.add(IGNORED, ignored)
    facts = CohortFacts(
        scans=len(renamed),
        channels=channels,
        skull_stripped=stripped,
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        labels=tuple(sorted((value, name) for name, value in study.labels.items())),
    )
    sources = PublicSources(
        sources=tuple(source for source in public.sources if source in used),
        recipes=tuple(recipe for recipe in public.recipes if recipe in recipes),
    )
    return sources, LabelMaking.of(chains), facts


def _face_finding(image: bytes, label_map: bytes, grid: Grid) -> FaceFinding:
    """Of an image that was found clean. Raises VerificationFailed where its label map is not."""
    if check_clean_nifti(label_map, is_label_map=True) != grid:
        return NOT_SHOWN
    return painted_face_finding(clean_voxels(image, grid), clean_labels(label_map, grid), grid.affine())


class _Writer:
    """Writes a release's files and remembers their hashes."""

    def __init__(self, folder: Path, scan: TextScan) -> None:
        self._folder, self._scan = folder, scan
        self.files: dict[str, str] = {}

    def add(self, name: str, content: bytes) -> None:
        """Write one file.

        Raises:
            VerificationFailed: a text in it holds a patient's identifier, a site's name or a date.
        """
        self.check(name, content)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.files[name] = hashlib.sha256(content).hexdigest()

    def check(self, name: str, content: bytes) -> None:
        """Look through what is to be written. Raises VerificationFailed as :meth:`add`."""
        problem = self._scan.problem(name, content)
        if problem:
            raise _broken(problem)

    def settle(self) -> None:
        """Give every file and folder the same permissions and time."""
        for path in sorted(self._folder.rglob("*"), reverse=True):
            path.chmod(0o755 if path.is_dir() else 0o644)
            os.utime(path, (_CONSTANT_TIME, _CONSTANT_TIME))
        self._folder.chmod(0o755)


def _broken(found: str) -> VerificationFailed:
    return VerificationFailed(
        found,
        expected="a folder exactly as it was signed, of files that carry nothing but the release",
        remedy="Do not use it; make it anew, or ask the signer for a fresh copy.",
    )
