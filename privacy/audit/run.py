"""``audit run``: gathers what the audit reads from a run's folder, counts it, runs it, writes its result."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...common.atomic import write_atomic
from ...common.cohort import Cohort
from ...common.device import choose_device
from ...common.enrolment.named_generator import named_by_coordinator
from ...common.errors import ConfigError, DataError, VerificationFailed, about
from ...common.folder_lock import hold_folder
from ...common.gan.generation import load_generator, numpy_parameters
from ...common.gan.parameters import parameters_digest
from ...common.gan.weights import GENERATOR, load_weights, maps_of, read_weights_header, study_of
from ...common.installed_code import installed_code_digest
from ...common.journal import Fact, Journal, read_journal
from ...common.keys import key_id
from ...common.randomness import derived_seed
from ...common.run_result import check_generator, refuse_several_generators
from ...common.scan_record import scans_digest
from ...common.site_folder import SITE_FILE, SiteFolder, site_folders, site_material
from ...common.study import Study
from ..evidence import ReleaseKind
from ..joint.combination import is_combined, verify_combined
from ..policy import ReleasePolicy
from ..power import Power
from ..synthetic_cohort import painters, refuse_private_label_maps
from ..synthetic_digest import synthetic_digest
from ..synthetic_files import synthetic_volumes
from .audit import AuditPlan
from .binding import refuse_void
from .course import Estimate
from .critics import kept_critics
from .gathering import gather
from .history import DONE, FAILED, end_audit, failed_before, refuse_forgotten, stands_failed, take_turn
from .inputs import inputs_digest, insiders_digest, material_digest
from .kept_findings import FINDINGS, KeptFindings
from .kept_networks import CONTROLS, KeptNetworks
from .reading import read_audit
from .run_attack import RunMaterial, attack_on_painter, attack_on_reader
from .shadow_training import FEWEST, ShadowPlan
from .signature import sealed, sign_result
from .trajectory import kept_trajectory

STRANGERS = (
    "None of the keys that sign this audit is an officer's whom the study names (federation.approval_keys): no site can"
    " approve a release beyond the study by it."
)
"""Said before the holdout is looked at for nothing."""
RESULT = "audit.json"
"""The result of the latest audit; each one's own stays beside it, as ``audit-001.json`` and so on."""

SHADOWS = "shadows"
"""What shadow generators showed, kept until their audit is done."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class AuditSizes:
    """How much an audit does.

    Attributes:
        steps: Of the reference and the negative controls; as many as a site of the study trains, by default.
        negative_seeds: Seeds of the negative control; three make a full audit.
        draws: Noise draws of A1, at most.
        blind_permutations: Of the blind baseline.
        white_box: Whether the generators' weights are searched: without it a release of weights cannot PASS.
        shadows: Shadow generators to train, an even number from four on; 0 for none.
    """

    steps: int | None = None
    negative_seeds: int = 3
    draws: int = 8
    blind_permutations: int = 200
    white_box: bool = False
    shadows: int = 0

    def __post_init__(self) -> None:
        if self.shadows and (self.shadows < FEWEST or self.shadows % 2):
            raise ConfigError(
                f"{self.shadows} shadow generators",
                expected=f"an even number from {FEWEST} on: each patient is in half of them",
                remedy=f"Give --shadows 8 or 16, the more the surer; fewer than {FEWEST} show no spread.",
            )

    @classmethod
    def reduced(cls, steps: int) -> AuditSizes:
        """One negative control, fewer steps and draws: INCONCLUSIVE at best, and it says so."""
        return cls(steps, negative_seeds=1, draws=4, blind_permutations=50)


def audit_run_folder(
    run: Path,
    synthetic: Path | None,
    public: Cohort | None,
    out: Path,
    sizes: AuditSizes,
    policy: ReleasePolicy,
    release: ReleaseKind = "volumes",
    *,
    generator_file: Path | None = None,
    named_by_file: Path | None = None,
    keys: Sequence[Ed25519PrivateKey] = (),
    device: str = "auto",
    progress: Progress = lambda done, total: None,
    announce: Callable[[Power], None] = lambda power: None,
    estimate: Estimate = lambda attack, seconds: None,
    begins: Callable[[int, Sequence[str] | None], None] = lambda number, finished: None,
    warn: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Audit a run's generator with its sites' coins; where an audit of the very same was broken off in ``out``, go on.

    On one machine the sites' per-patient scores are pooled, compared within each site only. A real federation
    never does that: there, sites exchange counts and intervals (DESIGN §4.8).

    Args:
        run: What ``simulate`` left, or one site's folder; where sites train alone, nothing but the latter.
        synthetic: The cohort as it would be released; of no use to a network from images to labels, which paints none.
        public: Public patients who stand in as reference where no patient has that role.
        out: Where ``audit.json`` goes, and ``audit-001.json`` and so on for each audit's own result.
        sizes: How much.
        policy: Thresholds.
        release: What is to be released; of a network that paints nothing only its weights can be.
        generator_file: The generator; ``generator.safetensors`` in ``run`` by default.
        named_by_file: The coordinator's signed statement that a site's patients trained it, for the site's own folder.
        keys: Which sign the result as the audit ends, the compliance officer's; without one it is no ground for a
            release beyond the study.
        device: Where to train.
        progress: (stages done, stages in all).
        announce: Told, before the first training, what an audit of this size can show.
        estimate: Told then how many seconds the controls' training will take, and each attack that has to be asked for.
        begins: Told the audit's number and, where it goes on, what was found finished; None where it is a new one.
        warn: Told, before the holdout is looked at, why the result would be of no use.

    Returns:
        What ``--json`` prints.

    Raises:
        ConfigError: another process audits into ``out``, or ``named_by_file`` would have no effect.
        DataError: the whole folder of a run whose sites each have a generator of their own.
        PolicyRefused: a scan that was painted on a private label map.
        FedPhantomError: the folder, cohort, coins or generator cannot be used.
    """
    chosen = choose_device(device)
    refuse_several_generators(run)
    if generator_file is None and not (run / GENERATOR).exists():
        raise DataError(
            "a site's folder without a generator"
            if (run / SITE_FILE).exists()
            else "a run without a generator: it has not finished"
            if run.is_dir()
            else "no run folder at the path given",
            expected="what 'fedphantom simulate' left, or a site's folder and the generator it received",
            remedy="Check the path, finish the run with the command that began it, or name the file with --generator.",
        )
    file = generator_file or run / GENERATOR
    generator = load_generator(file, chosen, maps_of(file))
    study, folders = generator.study, site_folders(run)
    _refuse_other_study(study, folders)
    signers, named = {key_id(key.public_key()) for key in keys}, study.federation.approval_keys
    if signers and named and not signers.intersection(named):
        warn(STRANGERS)
    parameters = parameters_digest(numpy_parameters(generator.network))
    journal_of = {folder.name: folder.journal for folder in folders}
    named_by = check_generator(run, parameters, read_weights_header(file)[1], journal_of)
    if named_by_file:
        if named_by:
            raise ConfigError(
                "--named-by where a journal at hand names the generator: it would have no effect",
                expected="no --named-by: it is for a site's own folder and a generator that the site received",
                remedy="Leave --named-by out.",
            )
        named_by = named_by_coordinator(named_by_file, run, folders[0].name, study, parameters)
    paints = study.network.maps == "labels-to-images"
    release = release if paints else "weights"
    if (sizes.white_box or sizes.shadows) and not paints:
        raise ConfigError(
            "--white-box or --shadows where the network paints nothing: they would have no effect",
            expected="a generator of images, which can be asked or searched for a patient's scan",
            remedy="Leave them out.",
        )
    if paints:
        if synthetic is None:
            raise DataError(
                "no synthetic cohort to audit",
                expected="the cohort that is to be released",
                remedy="Make one with 'fedphantom generate' and name it with --synthetic.",
            )
        with about("the synthetic cohort"):
            volumes = synthetic_volumes(synthetic, study)  # whatever else lies there would leave unattacked
        _refuse_foreign_volumes(synthetic, generator.sha256)
        refuse_private_label_maps(volumes)
    sites = [site_material(folder, study) for folder in folders]
    scans, roles, stands_in = gather(sites, public, study, run / "cache")
    digest = hashlib.sha256("".join(sorted(site.coins.cohort_digest for site in sites)).encode()).hexdigest()
    site_steps = study.training.rounds * study.training.local_steps
    insider = kept_critics(folders, study, chosen) if paints else None
    rounds = kept_trajectory(folders, study, chosen)
    code, scans_sha256 = installed_code_digest(), scans_digest([folder.journal for folder in folders])
    material = RunMaterial(generator, scans, roles, digest, site_steps, stands_in, named_by, insider, rounds)
    read = material_digest(scans, roles, code)
    same = sealed(f"{generator.sha256} {digest} {read}", keys)
    kept = KeptNetworks(out / CONTROLS, same)
    inputs = inputs_digest(
        read,
        (
            *(generator.sha256, digest, study.digest(), insiders_digest(folders), stands_in, named_by),
            *(synthetic_digest(synthetic) if synthetic and paints else None, release, sizes, policy, str(chosen.torch)),
        ),
    )
    journals = [Journal(folder.journal) for folder in folders]
    with hold_folder(out / FINDINGS):
        findings = KeptFindings(out / FINDINGS, sealed(inputs, keys))
        attack = (
            attack_on_painter(material, synthetic, out / "cache", kept, findings.once, white_box=sizes.white_box)
            if synthetic and paints
            else attack_on_reader(material)
        )
        refuse_forgotten(out, journals, digest)
        if stands_failed(journals, generator.sha256, parameters, release, policy.tier):
            warn(FAILED)
        told: dict[str, Fact] = {"generator": generator.sha256, "parameters": parameters, "tier": policy.tier}
        turn = take_turn(journals, findings, begins, **told)
        plan = AuditPlan(
            release=release,
            seed=derived_seed(study.seed, "audit", turn.number),
            training_seed=derived_seed(study.seed, "audit's trainings"),
            steps=sizes.steps or site_steps,
            scans_per_step=study.training.batch,
            negative_seeds=sizes.negative_seeds,
            draws=sizes.draws,
            earlier=turn.earlier,
            blind_permutations=sizes.blind_permutations,
            trainings_at_once=1 if chosen.cuda else None,
            shadows=ShadowPlan(
                sizes.shadows,
                derived_seed(study.seed, "shadows"),
                sizes.steps or site_steps,
                out / SHADOWS,
                same,
            )
            if sizes.shadows
            else None,
        )
        found = attack(plan, policy, lambda _, done, total: progress(done, total), announce, estimate)
        result = replace(
            found,
            parameters_sha256=parameters,
            channels=study.channels,
            scans_sha256=scans_sha256,
            code_sha256=code,
        )
        text = result.to_json()
        sign_result(_keep(out, turn.number, text.encode()), study.digest(), keys)
        end_audit(
            journals,
            turn,
            result.p_values(),
            verdict=result.verdict.outcome,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            release=release,
            signed_by=[key_id(key.public_key()) for key in keys],
            **told,
        )
        write_atomic(out / RESULT, text.encode())
        if sizes.shadows:
            shutil.rmtree(out / SHADOWS)
        kept.forget()
        findings.forget()
    content: dict[str, Any] = json.loads(text)
    return content


def _keep(out: Path, number: int, content: bytes) -> Path:
    """Write one audit's own file; one of the same number, of other sites' journals perhaps, is never written over.

    Returns its path.
    """
    path = out / f"audit-{number:03d}.json"
    if path.exists() and path.read_bytes() != content:
        path = path.with_stem(f"{path.stem}-{hashlib.sha256(content).hexdigest()[:12]}")
    write_atomic(path, content)
    return path


def verify_audit(result: Path, run: Path, generator_file: Path | None = None) -> dict[str, Any]:
    """Check that an audit's result speaks of this run's generator, scans and code, and is what its sites noted.

    A folder of no site (a generator that was received) has no journal and no scans to ask; everything else is checked
    there too. For an audit that was combined from several sites' the sites' signatures stand in their journals' place.

    Args:
        result: The result file, or the folder that it lies in.
        run: The run that it should speak of, or a site's folder.
        generator_file: The generator; ``generator.safetensors`` in ``run`` by default.

    Raises:
        SignatureInvalid, PolicyRefused: a combined audit that the sites did not sign, or not all of them.
        DataError: no readable result, or no folder at ``run``.
        VerificationFailed: it is the audit of another generator, other scans or by other code, its verdict is better
            than its figures allow, a site's journal does not hold its SHA-256, or an earlier audit of this generator
            failed.
    """
    content = read_consistent_result(result)
    raw = (result / RESULT if result.is_dir() else result).read_bytes()
    if not run.is_dir():
        raise DataError(
            "no run folder at the path given", expected="the run that was audited", remedy="Check the path."
        )
    if is_combined(raw):
        verify_combined(raw, run, generator_file)
        return content
    refuse_several_generators(run)
    file = generator_file or run / GENERATOR
    actual = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "none"
    if content.get("generator_sha256") != actual:
        raise VerificationFailed(
            "the audit of another generator",
            expected="one of the generator in this run",
            remedy="Run 'fedphantom audit run' on it; an audit is void once the generator changes.",
        )
    has_sites = (run / SITE_FILE).exists() or any(run.glob(f"sites/*/{SITE_FILE}"))
    folders = site_folders(run) if has_sites else ()
    parameters, metadata = load_weights(file)
    journals = {folder.name: folder.journal for folder in folders}
    _refuse_other_study(study_of(metadata), folders)
    digest = parameters_digest(parameters)
    check_generator(run, digest, metadata, journals)
    if folders:
        refuse_forgotten(
            result if result.is_dir() else result.parent,
            [Journal(journal) for journal in journals.values()],
            str(content.get("cohort_digest")),
        )
        for journal in journals.values():
            done = [e.facts for e in read_journal(journal) if e.event == DONE] if journal.exists() else []
            if hashlib.sha256(raw).hexdigest() not in {facts.get("sha256") for facts in done}:
                raise VerificationFailed(
                    "an audit result that a site's journal does not know",
                    expected=f"{RESULT} as 'fedphantom audit run' left it",
                    remedy="Restore that file, or run the audit again.",
                )
            kind, tier = content["release"], content["tier"]
            hidden = any(failed_before(facts, actual, digest, kind, tier) for facts in done)
            if hidden and content["verdict"] != "FAIL":
                raise VerificationFailed(
                    "a generator that failed an earlier audit of this kind of release",
                    expected="no FAIL among its audits: another try, with other luck, does not undo one",
                    remedy="Train another generator, with fewer steps, more patients or differential privacy.",
                )
    refuse_void(content, folders)
    return content


def result_file(path: Path) -> Path:
    """A result file itself, or the latest one in an audit's folder, or in that of a run or site."""
    places = (path, path / "audit") if path.is_dir() else ()
    return next((place / RESULT for place in places if (place / RESULT).is_file()), path)


def read_consistent_result(path: Path) -> dict[str, Any]:
    """As :func:`read_result`; that the file is what an audit left, only :func:`verify_audit` can tell.

    Raises:
        VerificationFailed: its verdict is better than its own figures allow.
    """
    content = read_result(path)
    read_audit(json.dumps(content).encode())
    return content


def read_result(path: Path) -> dict[str, Any]:
    """Parse ``audit.json``. Raises DataError where there is none."""
    file = path / RESULT if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and {"verdict", "attacks", "controls", "counts"} <= content.keys():
            return content
    except (OSError, ValueError, RecursionError):
        pass
    raise DataError(
        f"no readable audit result in '{file.name}' at the path given",
        expected=f"{RESULT} of 'fedphantom audit run'",
        remedy="Give the path of that file or of its folder. An audit that was broken off has none yet: the"
        " command that began it goes on with it.",
    )


def _refuse_other_study(study: Study, folders: Sequence[SiteFolder]) -> None:
    if any(folder.study().digest() != study.digest() for folder in folders):
        raise VerificationFailed(
            "a generator of another study than the sites'",
            expected="the generator that these sites trained: their coins say nothing about another",
            remedy="Give the run's own generator.",
        )


def _refuse_foreign_volumes(synthetic: Path, generator_sha256: str) -> None:
    """Volumes of another generator, or of unknown origin, would make the audit look harmless."""
    if painters(synthetic) - {generator_sha256}:
        raise VerificationFailed(
            "a synthetic cohort with a volume that this generator did not paint, or whose sidecar does not say so",
            expected="the cohort as 'fedphantom generate' left it, painted by the generator under audit alone",
            remedy="Generate the cohort anew with that generator, or name its own.",
        )
