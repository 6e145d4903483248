"""A site's own generator, where the study has each site train alone: kept in its folder, named by its journal.

An ensemble's site and one that shares volumes keep it alike; they differ in whether the coordinator gets a copy.
"""

from __future__ import annotations

from ..common.exchange import Parameters
from ..common.gan.parameters import parameters_digest
from ..common.gan.weights import generator_metadata, save_weights
from ..common.journal import Journal
from ..common.run_result import GENERATOR_KEPT
from ..common.site_folder import SiteFolder
from ..common.study import Study


def settle_generator(
    folder: SiteFolder, study: Study, round_: int, generator: Parameters, dp: str = "none"
) -> Parameters:
    """Keep what a round's training led to, where it is the site's own; the same again changes nothing.

    Args:
        folder: The site's.
        study: Says whether it is, and whether weights leave.
        round_: 1-based.
        generator: After the round.
        dp: The statement of what was promised, for the file's header.

    Returns:
        What of it may leave: all, or nothing.

    Raises:
        VerificationFailed: the site's journal was edited.
        StorageError: the disk is full, read-only or forbidden.
    """
    if study.federation.alone:
        digest = parameters_digest(generator)
        # First: a file that no journal names is nobody's.
        with Journal(folder.journal).held() as journal:
            kept = {entry.facts.get("generator") for entry in journal.entries() if entry.event == GENERATOR_KEPT}
            if digest not in kept:
                journal.append(GENERATOR_KEPT, round=round_, generator=digest)
        save_weights(folder.generator, generator, generator_metadata(study, round_, dp), mode=0o600)
    return generator if study.federation.weights_leave else {}
