"""``site withdraw``: out of the study for good, and a signed notice of it for the coordinator."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.enrolment.notice import NOTICE, Notice
from ...common.enrolment.signed_file import file_digest, signed
from ...common.errors import ConfigError
from ...common.journal import Journal
from ...common.reason import SENTENCE, is_sentence
from ...common.site_folder import SiteFolder
from .folder import NodeFolder
from .joining import open_enrolled
from .keys import present_keys
from .standing import withdraw

NOTICE_SIGNED = "notice-signed"
"""Journal event, written before the notice is, with its SHA-256."""


@dataclass(frozen=True)
class SiteWithdrawn:
    """A site that has left.

    Attributes:
        site: Its public name.
        withdrawn: Since when, UTC.
        notice: The file for the coordinator; None where the site has no keys that one could be signed with.
    """

    site: str
    withdrawn: str
    notice: str | None

    def text(self) -> str:
        """For a terminal."""
        if self.notice:
            name = shlex.quote(Path(self.notice).name)
            send = (
                f"send {shlex.quote(self.notice)} to the coordinator, whose rounds wait for this site until then; it"
                f" runs: fedphantom server revoke DIR {self.site} --notice {name}"
            )
        else:
            send = (
                "this folder has no keys to sign a notice with: tell the coordinator, who runs: fedphantom server"
                f" revoke DIR {self.site} --reason TEXT"
            )
        return "\n".join(
            (
                f"'{self.site}' withdrew on {self.withdrawn[:10]}; its folder stays",
                send,
                "rounds answered before remain in the generator: only its releases can be withdrawn, by your officer",
            )
        )


def leave(folder: SiteFolder, reason: str) -> SiteWithdrawn:
    """Withdraw, then sign the notice; called again, the same one, or one by the keys that are in use now.

    Args:
        folder: The site's folder.
        reason: For the site's own journal; told to nobody.

    Raises:
        ConfigError: a reason that says nothing; the site has not withdrawn.
        VerificationFailed: the site's journal was edited.
        StorageError: the disk is full, read-only or forbidden; once the journal tells of it, the site has withdrawn.
    """
    if not is_sentence(reason):
        raise ConfigError(
            "--reason: it says too little, or too much",
            expected=SENTENCE,
            remedy="Say why: it is for good, and this site's journal keeps it.",
        )
    withdrawn = withdraw(folder, reason)
    notice = _signed(folder, withdrawn)
    if notice is None:
        return SiteWithdrawn(folder.name, withdrawn, None)
    path = NodeFolder(folder.root).notice(folder.name)
    if not path.is_file() or path.read_bytes() != notice:
        Journal(folder.journal).append(NOTICE_SIGNED, notice=file_digest(notice))
        write_atomic(path, notice)
    return SiteWithdrawn(folder.name, withdrawn, str(path))


def _signed(folder: SiteFolder, withdrawn: str) -> bytes | None:
    try:
        _, node, invitation = open_enrolled(folder.root)
        keys = present_keys(node)
    except ConfigError:  # of a simulation, or damaged: it has left all the same
        return None
    said = Notice(study_digest=invitation.study_digest, site=folder.name, withdrawn=withdrawn)
    return signed(NOTICE, said, keys.identity) if keys else None
