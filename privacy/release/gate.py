"""What sites' policies say to a release: whether it may be packed or approved, and whose approval it needs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from ...common.counted import counted
from ...common.errors import ConfigError, PolicyRefused, SignatureInvalid
from ...common.study import Study
from ..approving_site import ApprovingSite
from ..audit.extract import AuditExtract
from ..audit.recomputation import RANK, best_verdict
from ..evidence import BINDING, ReleaseKind
from ..policy import ReleasePolicy, SitePolicy, Tier
from ..statement import PERMITTED, STRICTER
from ..verdict import Outcome


def refuse_by_policy(extract: AuditExtract, policy: ReleasePolicy, kind: ReleaseKind, tier: Tier) -> Outcome:
    """Judge an audit's figures by a site's own thresholds; returns the verdict, where it lets such a release go.

    Raises:
        PolicyRefused: it does not, the policy is for releases with fewer readers, or the audit did not look at every
            way such a release could be attacked.
    """
    if policy.tier not in STRICTER[tier]:
        raise PolicyRefused(
            f"a site's policy of tier '{policy.tier}'",
            expected=f"one that permits releases of tier '{tier}'",
            remedy="Pack for a tier that the site's policy permits, or have the site change its policy.",
        )
    if not set(BINDING[kind]) <= set(BINDING[extract.release]):
        raise PolicyRefused(
            f"an audit for {extract.release}",
            expected=f"one for {kind}: it looks at every way such a release could be attacked",
            remedy="Run the audit for that kind of release.",
        )
    verdict = min(extract.verdict, best_verdict(extract, policy), key=RANK.index)
    if verdict not in PERMITTED[tier]:
        raise PolicyRefused(
            f"audit verdict {verdict} by a site's own policy",
            expected=f"{' or '.join(PERMITTED[tier])} for a release of tier '{tier}'",
            remedy="Read the audit's reasons; a threshold is moved only in the policy, with a reason.",
        )
    return verdict


def approving_sites(
    study: Study, policies: Sequence[SitePolicy], tier: Tier, day: date, contributed: int | None
) -> tuple[ApprovingSite, ...]:
    """Whose approval a release needs: of one site's generator that site's, of an average every contributing site's.

    The sites of an average are those that the study names by their officers' keys: every site read that study before
    it trained, and the generator carries its digest. So nobody who packs can leave one out unnoticed by the others.

    Args:
        study: That the generator was trained for.
        policies: The sites'; none for a release inside the study.
        tier: Whom the release is for.
        day: Of packing.
        contributed: How many sites the run's journal names; None where there is none.

    Raises:
        PolicyRefused: no policy, too few or too many, or a study that does not name its sites' keys.
        ConfigError: a policy that lists nobody who may sign.
        SignatureInvalid: policies of other sites than the study names, or whose keys have expired.
    """
    if not policies:
        if tier == "internal":
            return ()
        raise PolicyRefused(
            f"a release of tier '{tier}' without a site's policy",
            expected="the policy of every site that stands behind it: it says who has to approve",
            remedy="Name it with '--policy'; 'fedphantom release policy' writes one to start from.",
        )
    sites = tuple(sorted((ApprovingSite.of(policy, day) for policy in policies), key=lambda one: one.policy_sha256))
    keys = [signer.key for site in sites for signer in site.signers]
    if len(set(keys)) < len(keys):
        raise ConfigError(
            "one key in two policies, or one policy given twice",
            expected="people of its own for every site",
            remedy="Give each site's policy once; whoever serves two sites needs a key for each.",
        )
    if study.federation.alone:
        if len(sites) != 1:
            raise PolicyRefused(
                f"{counted(len(sites), 'policy', 'policies')} for a generator that one site trained alone",
                expected="that site's",
                remedy="Give its policy alone.",
            )
        return sites
    refuse_other_sites(study, sites, contributed)
    return sites


def refuse_other_sites(study: Study, sites: Sequence[ApprovingSite], contributed: int | None) -> None:
    """Find that these are all the sites of an average, and no others: one for each key that the study names.

    Raises:
        PolicyRefused: the study names none, or another number than contributed or than are here.
        SignatureInvalid: a site whose officer's key the study does not name, or a key that is no site's.
    """
    named = set(study.federation.approval_keys)
    if not named:
        raise PolicyRefused(
            "a generator of several sites whose study does not say whose approval it needs",
            expected="the key of every site's compliance officer under federation.approval_keys",
            remedy="Begin a study with 'fedphantom study new STUDY.toml --approval-key KEY.pub.pem ...', a key a site;"
            " sites that trained under this one never saw who would have to approve.",
        )
    numbers = {len(named), len(sites), contributed or len(named)}
    if len(numbers) > 1:
        told = f", and a run of {contributed}" if contributed else ""
        raise PolicyRefused(
            f"policies of {counted(len(sites), 'site')}, a study that names {len(named)}{told}",
            expected="every contributing site's, each once",
            remedy="Give every site's policy: an average is not released without each of them.",
        )
    for site in sites:
        officers = {signer.key for signer in site.signers if signer.role == "compliance officer"}
        if len(officers & named) != 1:
            raise SignatureInvalid(
                f"a site (policy {site.policy_sha256[:12]}…) whose compliance officer's key the study does not name",
                expected="one key of each site's officers, and of nobody else, under federation.approval_keys",
                remedy="Give the policy of the site that the study names; if its key expired, have the site extend it.",
            )
