"""The coordinator's signature under what its study's rounds led to, for the sites that audit it."""

from __future__ import annotations

from ...common.atomic import write_atomic
from ...common.enrolment.named_generator import NAMED_GENERATOR, NamedGenerator
from ...common.enrolment.signed_file import signed
from ...common.gan.parameters import parameters_digest
from ...common.keys import load_private_key
from ...common.study import Study
from ..checkpoints import Checkpoint
from .folder import CoordinatorFolder


def name_generator(folder: CoordinatorFolder, study: Study, checkpoint: Checkpoint) -> None:
    """Sign which generator a finished run made and whose replies went into it; again, the same file.

    Where sites train alone there is none to name: each one's own journal does.

    Raises:
        StorageError: the disk is full, read-only or forbidden.
    """
    if study.federation.alone:
        return
    said = NamedGenerator(
        study_digest=study.digest(),
        parameters=parameters_digest(checkpoint.generators()[""]),
        rounds=checkpoint.round,
        sites=tuple(sorted({site for record in checkpoint.history for site in record.sites})),
    )
    write_atomic(folder.named_generator, signed(NAMED_GENERATOR, said, load_private_key(folder.private_key)))
