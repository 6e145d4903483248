"""``site status``: approval, enrolment, rounds answered, what left."""

from __future__ import annotations

from typing import Any

from ...common.counted import counted
from ...common.enrolment.invitation import Invitation
from ...common.errors import FedPhantomError
from ...common.journal import read_journal
from ...common.site_folder import ROUND_FAILED, SiteFolder
from ...common.study import parse_study
from .answers import answered, left
from .approval import refuse_unapproved
from .joining import accepted_roster, open_enrolled
from .standing import standing


def site_facts(folder: SiteFolder) -> dict[str, Any]:
    """How the site stands, for machines; no patient and no figure on patients in it."""
    entries = read_journal(folder.journal) if folder.journal.exists() else ()
    replies = [entry for entry in entries if answered(entry)]
    failed = [entry for entry in entries if entry.event == ROUND_FAILED]
    study, invited = folder.study(), _invited(folder)
    try:
        refuse_unapproved(folder)
        approved, why = True, None
    except FedPhantomError as error:
        approved, why = False, error.found
    if invited and invited.study_digest != study.digest():
        approved, why = False, "study.toml here is not the study of the invitation: put the invitation's text back"
        study = parse_study(invited.study)
    return {
        "site": folder.name,
        "study": study.name,
        "study_digest": study.digest(),
        "standing": standing(folder),
        "approved": approved,
        "not_approved_because": why,
        "enrolled_until": _enrolled_until(folder),
        "rounds": study.training.rounds,
        "rounds_answered": sorted({int(str(entry.facts["round"])) for entry in replies}),
        "last_answered": replies[-1].time if replies else None,
        "bytes_left": sum(int(str(entry.facts["bytes"])) for entry in entries if left(entry)),
        "last_failure": {"time": failed[-1].time, "kind": failed[-1].facts.get("kind")} if failed else None,
    }


def _invited(folder: SiteFolder) -> Invitation | None:
    """The invitation that the site came by; None where it is of a simulation."""
    try:
        return open_enrolled(folder.root)[2]
    except FedPhantomError:
        return None


def _enrolled_until(folder: SiteFolder) -> str | None:
    """The last moment at which the site's keys count, UTC; None where it has not joined."""
    try:
        _, node, invitation = open_enrolled(folder.root)
        roster = accepted_roster(node, invitation)
    except FedPhantomError:
        return None
    return next((site.expires for site in roster.sites if site.name == folder.name), None)


def site_text(facts: dict[str, Any]) -> str:
    """The same for people."""
    answered, last = facts["rounds_answered"], facts["last_failure"]
    lines = [
        f"site {facts['site']}, study {facts['study']} ({facts['study_digest'][:16]})",
        facts["standing"] + ("; approved" if facts["approved"] else f"; {facts['not_approved_because']}"),
        f"enrolled until {facts['enrolled_until'][:10]}" if facts["enrolled_until"] else "not joined",
        f"{counted(len(answered), 'round')} of {facts['rounds']} answered"
        + (f", the last {facts['last_answered']}" if answered else ""),
        f"{facts['bytes_left'] / 1e6:.1f} MB left for the coordinator; 'fedphantom journal show' lists them",
    ]
    if last:
        lines.append(f"last failure {last['time']} ({last['kind']}); errors.log says why")
    return "\n".join(lines)
