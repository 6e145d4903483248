"""What may lie in a release, file by file; whatever is not listed here does not belong there.

README.md  audit.json  public-labels.json  manifest.dsse.json
study.json                                                          kind ``volumes``: what its digest stands for
evaluation.json                                                     where usefulness was measured
generator.safetensors                                               kind ``weights``
cohort/dataset_description.json  participants.tsv  dseg.tsv         kind ``volumes``
cohort/README.md                                                    its datasheet
cohort/.bidsignore                                                  where BIDS has no name for a channel
cohort/sub-<16 hex>/anat/sub-<16 hex>_<channel>.nii.gz and .json
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ...common.cohorts.layouts.bids import DESCRIPTION, LABEL_LOOKUP
from ...common.errors import ConfigError, DataError, PolicyRefused, VerificationFailed
from ...common.gan.parameters import parameters_digest
from ...common.gan.weights import GENERATOR as GENERATOR
from ...common.gan.weights import METADATA, study_of
from ...common.labels.chain import LabelChain, PublicSources
from ...common.signing import MANIFEST as MANIFEST
from ...common.study import Study
from ...common.tensor_file import decode, encode
from ...common.volumes.grid import Grid
from ..audit.reading import read_audit
from ..audit.small_cells import travelling
from ..cohort_facts import CohortFacts
from ..dp.statement import NONE, DpStatement, read_dp
from ..label_making import LabelMaking
from ..statement import BIDS_IGNORE, ReleasePredicate
from ..synthetic_digest import digest_of_hashes
from ..synthetic_files import PARTICIPANTS, image_keys
from .clean_nifti import check_clean_nifti
from .datasheet import render_datasheet
from .evaluation import FILE as EVALUATION
from .evaluation import parse_evaluation
from .gate import refuse_other_sites
from .readme import render_readme
from .sidecar import parse_public_sources, parse_sidecar
from .tables import check_description, check_labels, check_participants, encode_bids_ignore, encode_json

P = ParamSpec("P")
T = TypeVar("T")

README = "README.md"
AUDIT = "audit.json"
PUBLIC_LABELS = "public-labels.json"
STUDY = "study.json"
"""Beside volumes, since it says whose approval they need; weights carry it in their header."""
COHORT = "cohort"
LABEL_KEY = "dseg"
DATASHEET = f"{COHORT}/{README}"
"""In the cohort, as BIDS wants a README: so it stays with the volumes whoever copies them."""
IGNORED = f"{COHORT}/{BIDS_IGNORE}"

COMMON_FILES = frozenset({README, AUDIT, PUBLIC_LABELS})
COHORT_TABLES = frozenset(f"{COHORT}/{name}" for name in (DESCRIPTION, PARTICIPANTS, LABEL_LOOKUP))
VOLUME_NAME = re.compile(
    rf"{COHORT}/(?P<subject>sub-[0-9a-f]{{16}})/anat/(?P=subject)_(?P<key>[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)*)"
    r"\.(?P<ending>nii\.gz|json)"
)


class ContentCheck:
    """Judges a release's files one after the other, then as a whole.

    Args:
        predicate: From the verified statement.
        public: From the release's ``public-labels.json``, whose hash was verified.
    """

    def __init__(self, predicate: ReleasePredicate, public: PublicSources) -> None:
        self._predicate, self._public = predicate, public
        self._endings: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._grids: set[Grid] = set()
        self._named: set[str] = set()
        self._tables: dict[str, bytes] = {}
        self._volumes: list[str] = []
        self._chains: list[LabelChain] = []
        self._stripped = 0
        self._audited: str | None = None
        self._parameters: str | None = None
        self._audited_parameters: str | None = None
        self._read: tuple[str, ...] = ()
        self._evaluated: str | None = None

    def file(self, name: str, content: bytes) -> None:
        """Judge one file whose hash was verified.

        Raises:
            VerificationFailed: the file does not belong in such a release, or its content does not.
        """
        self._named.add(name)
        volume = VOLUME_NAME.fullmatch(name) if self._predicate.kind == "volumes" else None
        if volume and volume["ending"] == "json":
            self._endings[volume["subject"]][volume["key"]].add("json")
            sidecar = _verified(parse_sidecar, content, self._predicate.generator_sha256, self._public)
            if sidecar.encode() != content:  # an entry given twice would hide the first
                raise _foreign("a sidecar in another encoding")
            if (sidecar.skull_stripped is None) != (volume["key"] == LABEL_KEY):
                raise _foreign("a sidecar that does not say whether its image is skull-stripped, or says so of labels")
            self._stripped += sidecar.skull_stripped is True
            if volume["key"] == LABEL_KEY:
                self._chains.append(sidecar.label_chain)
        elif volume:
            self._endings[volume["subject"]][volume["key"]].add("nii.gz")
            declared = self._predicate.cohort.grid if self._predicate.cohort else None
            self._grids.add(check_clean_nifti(content, is_label_map=volume["key"] == LABEL_KEY, declared=declared))
            self._volumes.append(hashlib.sha256(content).hexdigest())
        elif name == AUDIT:
            self._check_audit(content)
        elif name == EVALUATION and self._predicate.evaluation:
            extract = _verified(parse_evaluation, content)
            if extract.claim() != self._predicate.evaluation:
                raise _foreign("an evaluation other than the signed statement says")
            self._evaluated = extract.synthetic_sha256
        elif name == README:
            if content != render_readme(self._predicate).encode():
                raise _foreign("a README that does not say what was signed")
        elif name == DATASHEET and self._predicate.cohort:
            if content != render_datasheet(self._predicate).encode():
                raise _foreign("a datasheet that does not say what was signed")
        elif name == IGNORED and self._predicate.cohort:
            if not content or content != encode_bids_ignore(self._predicate.cohort.channels):
                raise _foreign("a .bidsignore with other entries")
        elif name == GENERATOR and self._predicate.kind == "weights":
            study, promised, self._parameters = check_weights(content)
            if (promised or NONE) != self._predicate.dp:
                raise _foreign("a generator of another formal promise than the signed statement says")
            self._check_study(study)
        elif name == STUDY and self._predicate.kind == "volumes":
            self._check_study(_study_in(content))
        elif name == PUBLIC_LABELS:
            if content != encode_json(self._public.model_dump(mode="json")):
                raise _foreign("a list of public label sources in another encoding")
        elif name in COHORT_TABLES and self._predicate.kind == "volumes":
            self._tables[name.removeprefix(f"{COHORT}/")] = content
        else:
            raise _foreign("a file that has no place in such a release")

    @property
    def volumes(self) -> int:
        """NIfTI files judged so far."""
        return len(self._volumes)

    def finish(self) -> None:
        """Judge the whole after every file.

        Raises:
            VerificationFailed: a file is missing, a volume lacks its sidecar, volumes differ in channels or grid, or
                they are not the ones that were audited.
        """
        if not self._named >= _expected(self._predicate):
            raise _foreign("a release that lacks one of its files")
        if self._evaluated not in (None, self._audited):
            raise _foreign("an evaluation of other volumes than the audit's")
        if LabelMaking.of(self._chains) != self._predicate.label_making:
            raise _foreign("label maps made otherwise than the signed statement says")
        if self._predicate.kind == "weights":
            if self._parameters != self._audited_parameters:
                raise _foreign("a generator of other parameters than were audited")
            return
        channels = {frozenset(keys) for keys in self._endings.values()}
        paired = all(endings == {"json", "nii.gz"} for keys in self._endings.values() for endings in keys.values())
        if len(channels) != 1 or LABEL_KEY not in next(iter(channels)) or not paired:
            raise _foreign("volumes without a sidecar or label map, or with different channels")
        if len(self._grids) != 1:
            raise _foreign("volumes on different grids")
        check_participants(self._tables[PARTICIPANTS], self._endings)
        check_description(self._tables[DESCRIPTION], self._read)
        self._check_cohort(self._predicate.cohort, next(iter(channels)) - {LABEL_KEY}, next(iter(self._grids)))
        if tuple(sorted(next(iter(channels)) - {LABEL_KEY})) != image_keys(self._read):
            raise _foreign("volumes of other channels than the audit read")
        if digest_of_hashes(self._volumes) != self._audited:
            raise _foreign("volumes other than those that were audited")

    def _check_study(self, study: Study) -> None:
        """Every site that the study names has to approve, and no other: in a release of either kind."""
        if study.digest() != self._predicate.study_digest:
            raise _foreign("another study than the signed statement says")
        if study.federation.sharing != self._predicate.sharing:
            raise _foreign("a study whose sites share otherwise than the signed statement says")
        if self._predicate.approving_sites and not study.federation.alone:
            _verified(refuse_other_sites, study, self._predicate.approving_sites, None)

    def _check_cohort(self, facts: CohortFacts | None, channels: frozenset[str], grid: Grid) -> None:
        if (
            facts is None
            or (facts.scans, facts.channels) != (len(self._endings), tuple(sorted(channels)))
            or (facts.grid, facts.skull_stripped) != (grid, self._stripped)
        ):
            raise _foreign("a cohort other than the signed statement says")
        check_labels(self._tables[LABEL_LOOKUP], facts.labels)

    def _check_audit(self, content: bytes) -> None:
        extract, shown = _verified(read_audit, content)
        self._audited, self._read = extract.synthetic_sha256, extract.channels
        self._audited_parameters = extract.parameters_sha256
        claim = self._predicate.audit
        if travelling(extract).encode() != content:
            raise _foreign("an audit with more in it than may travel")
        if extract.generator_sha256 != self._predicate.generator_sha256:
            raise _foreign("the audit of another generator")
        if shown.model_copy(update={"sha256": claim.sha256}) != claim:
            raise _foreign("an audit other than the signed statement says")


def check_weights(content: bytes) -> tuple[Study, DpStatement | None, str]:
    """Check that a weights file holds parameters and whitelisted facts, and nothing else.

    Returns:
        The study it was trained for, what was promised, and the digest of its parameters.

    Raises:
        VerificationFailed: not such a file, other facts, or bytes that FedPhantom would not have written.
    """
    parameters, facts = _verified(decode, content, "weights file of the release")
    metadata = {name: value for name, value in facts.items() if isinstance(value, str)}
    if metadata.keys() != facts.keys() or not metadata.keys() <= METADATA:
        raise _foreign("a weights file with unknown entries in its header")
    if encode(parameters, facts) != content:
        raise _foreign("a weights file with hidden bytes")
    study = _verified(study_of, metadata)
    return study, _verified(read_dp, metadata.get("dp", ""), study), parameters_digest(parameters)


def _study_in(content: bytes) -> Study:
    try:
        study = Study.model_validate_json(content)
    except (ValueError, ConfigError):
        study = None
    if study is None or study.canonical().encode() != content:
        raise _foreign("no study under its name, or one in another encoding than its digest is of")
    return study


def public_sources_of(content: bytes) -> PublicSources:
    """A release's ``public-labels.json``. Raises VerificationFailed."""
    return _verified(parse_public_sources, content)


def _expected(predicate: ReleasePredicate) -> frozenset[str]:
    evaluation = {EVALUATION} if predicate.evaluation else set()
    if predicate.cohort is None:
        return COMMON_FILES | evaluation | {GENERATOR}
    ignored = {IGNORED} if encode_bids_ignore(predicate.cohort.channels) else set()
    return COMMON_FILES | {STUDY} | evaluation | COHORT_TABLES | {DATASHEET} | ignored


def _verified(parse: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What is bad input or a refusal while packing is a failed verification in a release."""
    try:
        return parse(*args, **kwargs)
    except (DataError, PolicyRefused) as error:
        raise _foreign(error.found) from None


def _foreign(found: str) -> VerificationFailed:
    return VerificationFailed(
        found,
        expected="a release as 'fedphantom release pack' leaves it",
        remedy="Do not use this folder; ask the signer for another.",
    )
