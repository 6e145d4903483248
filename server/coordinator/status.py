"""``server status``: rounds, over a network or by files, sites, who is connected, what expires when."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ...common.enrolment.certificates import certificate_of
from ...common.gan.parameters import ParameterSpec
from ...common.in_toto import time_text
from ...common.study import Study
from ..checkpoints import Checkpoint, latest_checkpoint
from ..run_folder import RunFolder
from .carried_status import carried_facts, carried_text, goes_by_files
from .coordinator import Coordinator
from .folder import CoordinatorFolder
from .running import given_up_text, goes_on
from .serving import control_of, nodes_of, superlink_of


def server_facts(folder: CoordinatorFolder) -> dict[str, Any]:
    """How the coordinator stands, for machines; nothing in it that a site did not agree to tell.

    Raises:
        ConfigError, VerificationFailed: as :meth:`Coordinator.open`.
    """
    coordinator = Coordinator.open(folder.root)
    study, run, membership = coordinator.study(), RunFolder(folder.run), coordinator.registry.read()
    checkpoint = latest_checkpoint(run.checkpoints) if run.begun else None
    history = checkpoint.history if checkpoint else ()
    serving = superlink_of(folder).answers()
    online = control_of(folder).nodes() if serving else {}
    connected = {each.site: online.get(each.node, "unknown") for each in nodes_of(folder).read()}
    sites = []
    by_files = not serving and run.begun and goes_by_files(run)
    for site in membership.sites:
        answered = [record.round for record in history if site.name in record.sites]
        left_out = [(record.round, record.left_out[site.name]) for record in history if site.name in record.left_out]
        sites.append(
            {
                "name": site.name,
                "enrolled_until": site.expires,
                "connection": connected.get(site.name, "not let in" if serving else "not served"),
                "rounds_answered": len(answered),
                "last_answered": max(answered, default=None),
                "last_left_out": {"round": left_out[-1][0], "reason": left_out[-1][1]} if left_out else None,
            }
        )
    return {
        "study": study.name,
        "study_digest": study.digest(),
        "serving": serving,
        "rounds": {"done": len(history), "of": study.training.rounds},
        "running": serving and goes_on(folder),
        "rounds_given_up": [record.round for record in history if record.given_up],
        "why_given_up": {record.round: record.given_up for record in history if record.given_up},
        "by_files": by_files,
        "link": _link(study, checkpoint) if checkpoint and checkpoint.aggregate and not by_files else None,
        "carried": carried_facts(folder, study, membership, len(history)) if by_files else None,
        "last_round": asdict(history[-1]) if history else None,
        "sites": sites,
        "invited": [
            {"name": sent.site, "until": sent.expires, "expired": sent.expires < time_text(datetime.now(UTC))}
            for sent in membership.invitations
            if sent.state == "open"
        ],
        "revoked": sorted(name for name, how in membership.left().items() if how == "revoked"),
        "withdrew": sorted(name for name, how in membership.left().items() if how == "withdrew"),
        "certificates": {
            name: time_text(certificate_of(folder.certificate(name).read_bytes()).not_valid_after_utc)
            for name in ("sites-ca", "internal-ca", "proxy", "link")
        },
    }


def _link(study: Study, checkpoint: Checkpoint) -> dict[str, Any]:
    """What travels, over which link by the study, and what rounds took for it; training is in their time."""
    federation, values = study.federation, ParameterSpec.of(checkpoint.aggregate).values
    there_and_back = 2 * federation.travels_bytes(values)
    quickest = min((r for r in checkpoint.history if r.sites), key=lambda r: r.seconds, default=None)
    return {
        "bytes_there_and_back": there_and_back,
        "declared_mbit": federation.slowest_link_mbit,
        "declared_seconds": round(2 * federation.link_s(values), 1),
        "quickest_round": quickest.round if quickest else None,
        "seconds": quickest.seconds if quickest else None,
        "mbit_or_more": 8e-6 * there_and_back / quickest.seconds if quickest and quickest.seconds else None,
    }


def _link_text(link: dict[str, Any]) -> str:
    said = (
        f"{link['bytes_there_and_back'] / 1e6:.1f} MB travel a round to each site and back:"
        f" {link['declared_seconds']:.0f} s at the {link['declared_mbit']:g} Mbit/s that the study declares of the"
        " slowest link"
    )
    if link["mbit_or_more"] is None:
        return f"{said}; no round has measured it yet"
    return (
        f"{said}; round {link['quickest_round']}, the quickest, took {link['seconds']:.0f} s with its training:"
        f" {link['mbit_or_more']:.2g} Mbit/s or more. 'site doctor' says what a site's last reply took by itself"
    )


def status_text(facts: dict[str, Any]) -> str:
    """The same for people."""
    rounds = facts["rounds"]
    lines = [
        f"study {facts['study']} ({facts['study_digest'][:16]})",
        f"round {rounds['done']} of {rounds['of']} done; "
        + ("a run is under way; " if facts["running"] else "")
        + (
            "sites can reach this coordinator"
            if facts["serving"]
            else "rounds go by files"
            if facts["by_files"]
            else "nobody serves: 'fedphantom server start'"
        ),
        *given_up_text(facts["why_given_up"]),
        *([carried_text(facts["carried"])] if facts["carried"] else []),
        *([_link_text(facts["link"])] if facts["link"] else []),
        "",
    ]
    averaged = rounds["done"] - len(facts["rounds_given_up"])
    width = max((len(site["name"]) for site in facts["sites"]), default=4)
    for site in facts["sites"]:
        answered = f"answered {site['rounds_answered']} of {averaged}"
        left_out = site["last_left_out"]
        why = f"; round {left_out['round']} without it: {left_out['reason']}" if left_out else ""
        standing = f"{site['connection']}, enrolled until {site['enrolled_until'][:10]}"
        lines.append(f"  {site['name']:<{width}}  {standing}; {answered}{why}")
    for sent in facts["invited"]:
        until = f"until {sent['until'][:10]}" + (", which is over: invite it again" if sent["expired"] else "")
        lines.append(f"  invited, its request not granted yet: {sent['name']} ({until})")
    lines += [f"  {how}: {', '.join(facts[how])}" for how in ("revoked", "withdrew") if facts[how]]
    if not facts["sites"]:
        lines.append("  no site enrolled yet")
    lines += ["", *(f"{name} expires {when[:10]}" for name, when in facts["certificates"].items())]
    return "\n".join(lines)
