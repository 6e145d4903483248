"""The coordinator's word on which generator a study's rounds made, and of which sites.

A hospital that receives the finished generator has taken part in its rounds and has seen none of their end. What it
audits is the generator of its own patients' training only if somebody who saw all rounds says so; the key that signs
is the one that every invitation brought.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from ..errors import VerificationFailed, about
from ..keys import public_key_of
from ..labels.chain import Sha256
from ..run_result import NamedBy
from ..study import Study
from .invitation import INVITATION_FILE, read_invitation
from .signed_file import AboutStudy, Kind, opened, read_content
from .site_keys import SiteName


class NamedGenerator(AboutStudy):
    """What is signed.

    Attributes:
        parameters: Digest of the generator's parameters (:func:`~fedphantom.common.gan.parameters.parameters_digest`).
        rounds: Rounds that made it.
        sites: Those whose replies were averaged in one of them at least, by name.
    """

    parameters: Sha256
    rounds: Annotated[int, Field(ge=1)]
    sites: Annotated[tuple[SiteName, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sites != tuple(sorted(set(self.sites))):
            raise ValueError("its sites are not sorted, or a name is given twice")
        return self


NAMED_GENERATOR = Kind("named-generator", NamedGenerator, "fedphantom server run")


def named_by_coordinator(statement: Path, site: Path, name: str, study: Study, parameters: str) -> NamedBy:
    """Find that the coordinator whom a site joined names this generator as one that the site helped to train.

    Args:
        statement: The signed file.
        site: The site's folder, with the invitation that it came by.
        name: The site's.
        study: The site's own copy.
        parameters: Digest of the generator's parameters.

    Raises:
        ConfigError: no such file, or a site without an invitation.
        SignatureInvalid: another key's signature, or a file that was changed.
        VerificationFailed: it names another study's generator, another one, or one to which this site gave nothing.
    """
    with about("--named-by"):
        content = read_content(statement, NAMED_GENERATOR)
    invitation, _ = read_invitation(site / INVITATION_FILE)
    with about("--named-by"):
        said = opened(NAMED_GENERATOR, content, [public_key_of(invitation.coordinator_key.encode())])
        if {said.study_digest, invitation.study_digest} != {study.digest()}:
            raise _other("it speaks of another study")
        if said.parameters != parameters:
            raise _other("it names another generator")
        if name not in said.sites:
            raise _other("none of this site's rounds went into what it names")
    return "the coordinator's signature"


def _other(found: str) -> VerificationFailed:
    return VerificationFailed(
        f"a statement that does not make this the generator of these patients: {found}",
        expected="the statement that the coordinator's 'fedphantom server run' wrote beside this very generator",
        remedy="Ask the coordinator for generator and statement of one run.",
    )
