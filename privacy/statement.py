"""What a signer says about a release: an in-toto statement over every file of the folder.

Source: in-toto attestation framework, statement v1 (https://in-toto.io/Statement/v1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ..common.errors import VerificationFailed
from ..common.federation import Sharing
from ..common.in_toto import STATEMENT_TYPE, Digest, Record, Time
from ..common.labels.chain import LabelSource, Sha256, states_licence
from ..common.misfit import first_misfit
from ..common.one_line import ONE_LINE
from .approving_site import ApprovingSite, Override
from .cohort_facts import CohortFacts
from .dp.statement import DpStatement
from .evidence import BINDING, SMALLEST_CELL, ReleaseKind
from .label_making import LabelMaking
from .policy import FEWEST_FOR_PUBLIC, Tier
from .verdict import Outcome

PREDICATE_TYPE: Final = "urn:fedphantom:release:1"

PERMITTED: dict[Tier, tuple[Outcome, ...]] = {
    "internal": ("PASS", "INCONCLUSIVE"),
    "controlled": ("PASS",),
    "public": ("PASS",),
}
"""The verdicts with which a tier lets a release be packed."""

STRICTER: dict[Tier, tuple[Tier, ...]] = {
    "internal": ("internal", "controlled", "public"),
    "controlled": ("controlled", "public"),
    "public": ("public",),
}
"""The tiers whose audit is strict enough for a release of this tier (PRIVACY §5)."""


BIDS_IGNORE = ".bidsignore"
"""The one hidden file that a release may hold: BIDS gives it that name."""
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Subject(Record):
    """One file: its path inside the release, ``/`` between parts, and its hash."""

    name: str
    digest: Digest

    @model_validator(mode="after")
    def _check(self) -> Self:
        # No part may be "..", empty, hidden or absolute: the name is joined to a folder when it is verified.
        parts = self.name.split("/")
        if len(self.name) > 255 or not all(_PART.fullmatch(part) or part == BIDS_IGNORE for part in parts):
            raise ValueError("a subject's name is not a plain relative path")
        return self


class AuditClaim(Record):
    """The audit that the release rests on.

    Attributes:
        verdict: Its outcome.
        tier: The tier whose thresholds it was judged by.
        release: The kind of release it was made for.
        finding: What its figures say about the attacks; speaks of a PASS.
        sha256: Of the audit's result file as it was given to ``release pack``.
        overrides: Thresholds that were not the tier's, and why.
    """

    verdict: Outcome
    tier: Tier
    release: ReleaseKind
    finding: Annotated[str, Field(min_length=1, max_length=2000), ONE_LINE]
    sha256: Sha256
    overrides: tuple[Override, ...] = ()

    def covers(self, kind: ReleaseKind, tier: Tier) -> bool:
        """Whether it looked at every way such a release could be attacked, by thresholds as strict."""
        return set(BINDING[kind]) <= set(BINDING[self.release]) and self.tier in STRICTER[tier]


class EvaluationClaim(Record):
    """That the release holds figures of ``fedphantom evaluate``, and on how many patients.

    Attributes:
        protocols: Each once.
        test_patients: Patients that the segmenters did not train on; fewer than twenty are told nowhere (PRIVACY §3.1).
        procedural: Whether nobody was scanned for any of them.
    """

    protocols: tuple[Literal["arms", "shin", "fidelity"], ...] = Field(min_length=1, max_length=3)
    test_patients: int = Field(ge=SMALLEST_CELL)
    procedural: bool = False


class ReleasePredicate(Record):
    """What is released, on which grounds.

    Attributes:
        kind: Synthetic volumes, or the generator itself.
        tier: Whom it is meant for.
        audit_permits_sharing: Whether it may leave the study once it is approved: verdict PASS and a tier beyond
            internal.
        study_digest: Of the study the generator was trained for.
        generator_sha256: Of ``generator.safetensors``, also where only volumes are released.
        dp: The formal promise, all of it; ``none`` is said aloud.
        audit: What the audit found.
        evaluation: What else was measured on real patients; None for nothing.
        sharing: What the study's sites share.
        one_site: Whether one site alone trained the generator and stands behind the release, as it does unless sites
            share an average.
        approving_sites: The contributing sites, each of which has to approve it, in the order of their policies'
            digests. None for a release inside the study that was packed without a policy.
        label_carriers_min: No structure of the study is carried by fewer of the training patients, unless by none of
            them; None where nobody counted, which an internal release does not need.
        label_sources: Every public source that a label map of the release comes from.
        cohort: What the released cohort consists of; None for kind ``weights``.
        label_making: How the released label maps were made, by their chains; of none for kind ``weights``.
        created: UTC, ISO 8601, seconds.
        software: Name and version of what packed it.
        wording: Number of the sentences that it was packed with.
    """

    kind: ReleaseKind
    tier: Tier
    audit_permits_sharing: bool
    study_digest: Sha256
    generator_sha256: Sha256
    dp: Literal["none"] | DpStatement
    audit: AuditClaim
    evaluation: EvaluationClaim | None = None
    # Releases from before there were others say nothing of sharing: they are of averages.
    sharing: Sharing = "weights"
    one_site: bool = False
    approving_sites: tuple[ApprovingSite, ...] = Field(default=(), max_length=1000)
    label_carriers_min: int | None = Field(default=None, ge=1)
    label_sources: tuple[LabelSource, ...] = Field(min_length=1)
    label_making: LabelMaking = LabelMaking()
    cohort: CohortFacts | None = None
    created: Time
    software: Annotated[str, Field(pattern=r"^fedphantom [0-9A-Za-z.+-]{1,40}$")]
    wording: int = Field(ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.audit.verdict not in PERMITTED[self.tier] or not self.audit.covers(self.kind, self.tier):
            raise ValueError("the audit does not permit such a release")
        if self.audit_permits_sharing != may_be_shared(self.tier, self.audit.verdict):
            raise ValueError("audit_permits_sharing contradicts verdict and tier")
        if self.one_site != (self.sharing != "weights"):
            raise ValueError("one_site contradicts sharing")
        self._check_sites()
        if self.kind == "weights" and (self.sharing == "volumes" or self.label_making.scans):
            raise ValueError("weights of a study that shares volumes alone, or beside scans")
        if (self.kind == "volumes") != (self.cohort is not None) or (
            self.cohort and self.cohort.scans != self.label_making.scans
        ):
            raise ValueError("cohort contradicts kind or label_making")
        if any(source.kind != "public" for source in self.label_sources):
            raise ValueError("a label source is not public")
        if lacks_licence(self.kind, self.tier, self.label_sources):
            raise ValueError("publication of label maps whose owner states no licence")
        return self

    def _check_sites(self) -> None:
        sites = self.approving_sites
        policies = [site.policy_sha256 for site in sites]
        keys = [signer.key for site in sites for signer in site.signers]
        if policies != sorted(set(policies)) or len(set(keys)) < len(keys):
            raise ValueError("approving sites are not sorted, or two of them share a policy or a key")
        if self.one_site and len(sites) > 1:
            raise ValueError("one site behind the release, and several to approve it")
        if self.tier != "internal" and not sites:
            raise ValueError("a release beyond the study that no site has to approve")
        if any(site.tier not in STRICTER[self.tier] for site in sites):
            raise ValueError("a site's policy does not permit such a release")
        fewest = [site.label_carriers_min() for site in sites]
        fewest.append(FEWEST_FOR_PUBLIC if self.tier == "public" else None)
        if any(number is not None and (self.label_carriers_min or 0) < number for number in fewest):
            raise ValueError("structures of the study may be rarer than a site's policy or the tier permits")


class ReleaseStatement(Record):
    """The signed payload; files in the order of their names, each once."""

    statement_type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[Subject, ...] = Field(min_length=1)
    predicate_type: Literal["urn:fedphantom:release:1"] = Field(alias="predicateType")
    predicate: ReleasePredicate

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [subject.name for subject in self.subject]
        if names != sorted(set(names)):
            raise ValueError("subjects are not sorted, or a name is given twice")
        return self

    @classmethod
    def about(cls, files: dict[str, str], predicate: ReleasePredicate) -> ReleaseStatement:
        """The statement over files, given as path to SHA-256."""
        return cls(
            _type=STATEMENT_TYPE,
            subject=tuple(Subject(name=name, digest=Digest(sha256=files[name])) for name in sorted(files)),
            predicateType=PREDICATE_TYPE,
            predicate=predicate,
        )

    def files(self) -> dict[str, str]:
        """Path to SHA-256."""
        return {subject.name: subject.digest.sha256 for subject in self.subject}

    def encode(self) -> bytes:
        """The bytes to be signed."""
        return self.model_dump_json(by_alias=True).encode()


def unlicensed(sources: Iterable[LabelSource]) -> tuple[str, ...]:
    """Names of the sources whose owner states no licence, each once."""
    return tuple(dict.fromkeys(source.name for source in sources if not states_licence(source.licence)))


def lacks_licence(kind: ReleaseKind, tier: Tier, sources: Iterable[LabelSource]) -> bool:
    """Whether a release would publish label maps that nobody allowed to be passed on.

    Weights hold no label map. Short of publication an agreement can settle what a licence would; the README says so.
    """
    return kind == "volumes" and tier == "public" and bool(unlicensed(sources))


def may_be_shared(tier: Tier, verdict: Outcome) -> bool:
    """Whether a release may leave the study, as far as its audit is concerned."""
    return verdict == "PASS" and tier != "internal"


def parse_statement(payload: bytes) -> ReleaseStatement:
    """Parse a verified payload. Raises VerificationFailed, naming the key, where it is not such a statement."""
    try:
        return ReleaseStatement.model_validate_json(payload)
    except ValidationError as error:
        misfit = first_misfit(error, quote=False)  # a stranger's file: nothing of it is told again
        raise VerificationFailed(
            f"signed, but not a statement about a release: '{misfit.key or 'content'}'{misfit.found}",
            expected="an in-toto statement as 'fedphantom release pack' writes it",
            remedy="Ask the signer for a release packed by FedPhantom.",
        ) from None
