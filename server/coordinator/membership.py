"""Who is invited, enrolled and gone, and what may become of it; each change gives a new state or is refused."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Literal, Self

from pydantic import ValidationError

from ...common.enrolment.invitation import Invitation
from ...common.enrolment.notice import NOTICE, Notice
from ...common.enrolment.request import EnrolmentRequest
from ...common.enrolment.roster import EnrolledSite, RevokedKeys, Roster
from ...common.enrolment.signed_file import AboutStudy, opened
from ...common.enrolment.site_keys import SiteKeys, SiteName
from ...common.errors import ConfigError, PolicyRefused, SignatureInvalid, VerificationFailed
from ...common.in_toto import Record, Time, time_text
from ...common.keys import key_id
from ...common.labels.chain import Sha256
from ...common.signing import unverified

_GRACE = timedelta(days=1)
"""Clocks of two machines differ."""

Leaving = Literal["revoked", "withdrew"]
"""How a site left: by the coordinator, or by itself."""
_LEFT: dict[Leaving, str] = {"revoked": "was revoked", "withdrew": "withdrew"}


class SentInvitation(Record):
    """An invitation, without its secret.

    Attributes:
        site: For whom.
        digest: SHA-256 of its file.
        token: SHA-256 of its token.
        issued: When.
        expires: The last moment at which it can be used.
        state: ``open`` until it is used, or void because another replaced it or its site was revoked.
    """

    site: SiteName
    digest: Sha256
    token: Sha256
    issued: Time
    expires: Time
    state: Literal["open", "used", "void"]


class RetiredKeys(SiteKeys):
    """Keys that a site had.

    Attributes:
        retired: Since when they do not count.
        why: Whether the coordinator revoked them, the site renewed them, or it withdrew.
    """

    retired: Time
    why: Literal["revoked", "renewed", "withdrew"]


class Membership(AboutStudy):
    """The whole state.

    Attributes:
        serial: Rises with every change of what a roster says.
        changed: When that was.
        sites: Enrolled ones, by name.
        retired: In the order in which they were.
        invitations: In the order in which they were sent.
    """

    serial: int = 0
    changed: Time
    sites: tuple[EnrolledSite, ...] = ()
    retired: tuple[RetiredKeys, ...] = ()
    invitations: tuple[SentInvitation, ...] = ()

    def active(self, now: datetime) -> tuple[EnrolledSite, ...]:
        """Sites whose keys count, by name."""
        return tuple(site for site in self.sites if site.active(now))

    def by_node_key(self, node_key: str) -> EnrolledSite | None:
        """The enrolled site with this node key, if any."""
        return next((site for site in self.sites if site.node_key == node_key), None)

    def by_token(self, token: str) -> SentInvitation | None:
        """The invitation with this token, if any."""
        digest = _token_digest(token)
        return next((sent for sent in self.invitations if hmac.compare_digest(sent.token, digest)), None)

    def left(self) -> dict[str, Leaving]:
        """Sites that were enrolled and are not any more, by name, and how they left."""
        here = {site.name for site in self.sites}
        return {keys.name: keys.why for keys in self.retired if keys.why != "renewed" and keys.name not in here}

    def roster(self) -> Roster:
        """What sites are told; of keys that no longer count not why."""
        gone = [keys for keys in self.retired if keys.why != "renewed"]
        return Roster(
            study_digest=self.study_digest,
            serial=self.serial,
            issued=self.changed,
            sites=self.sites,
            revoked=tuple(
                RevokedKeys(name=keys.name, fingerprint=keys.fingerprint(), revoked=keys.retired) for keys in gone
            ),
        )

    def with_invitation(self, invitation: Invitation, digest: str) -> Self:
        """The state once it is sent; an open one for the same site is void from then on.

        Raises:
            PolicyRefused: the site is enrolled.
        """
        if any(site.name == invitation.site for site in self.sites):
            raise PolicyRefused(
                f"site '{invitation.site}' is enrolled",
                expected="the name of a site that is not",
                remedy="Its keys are renewed with 'fedphantom site renew'. If they are lost or its enrolment expired,"
                " revoke it first, then invite it again.",
            )
        sent = SentInvitation(
            site=invitation.site,
            digest=digest,
            token=_token_digest(invitation.token),
            issued=invitation.issued,
            expires=invitation.expires,
            state="open",
        )
        return self.model_copy(update={"invitations": (*self._voided(invitation.site), sent)})

    def with_request(self, request: EnrolmentRequest, now: datetime, days: int) -> Self:
        """The state once a request is granted, whose signatures were checked before.

        Args:
            request: From a site that holds the keys in it.
            now: In UTC.
            days: How long the keys count.

        Raises:
            VerificationFailed: an invitation that this coordinator did not send, or sent to another site, or expired;
                a renewal that the present identity key did not sign; a date that cannot be.
            PolicyRefused: an invitation that was used or is void, keys that are known already, a site that is enrolled.
        """
        keys, sent = request.content.keys, self._invitation_of(request)
        before = next((site for site in self.sites if site.name == keys.name), None)
        if request.content.renews:
            present = self._renewed(request, sent, before, now)
            retired = (*self.retired, _retired(present, now, "renewed"))
        else:
            self._refuse_spent(sent, now)
            if before is not None:
                raise PolicyRefused(
                    f"site '{keys.name}' is enrolled already",
                    expected="a site that is not",
                    remedy="Its keys are renewed with 'fedphantom site renew' at the site.",
                )
            retired = self.retired
        self._refuse_known(keys)
        _refuse_impossible_date(request, sent, now)
        site = EnrolledSite(
            name=keys.name,
            node_key=keys.node_key,
            identity_key=keys.identity_key,
            enrolled=time_text(now),
            expires=time_text(now + timedelta(days=days)),
        )
        others = [other for other in self.sites if other.name != keys.name]
        used = [row.model_copy(update={"state": "used"}) if row == sent else row for row in self.invitations]
        return self._changed(
            now,
            sites=tuple(sorted((*others, site), key=lambda one: one.name)),
            retired=retired,
            invitations=tuple(used),
        )

    def without(self, name: str, now: datetime, why: Leaving = "revoked") -> Self:
        """The state once a site is revoked or withdrew, and what was sent to it.

        Raises:
            ConfigError: no such site is enrolled or invited.
        """
        gone = [site for site in self.sites if site.name == name]
        invitations = self._voided(name)
        if not gone and invitations == self.invitations:
            raise self._unknown(name)
        return self._changed(
            now,
            sites=tuple(site for site in self.sites if site.name != name),
            retired=(*self.retired, *(_retired(site, now, why) for site in gone)),
            invitations=invitations,
        )

    def without_withdrawn(self, name: str, content: bytes, now: datetime) -> Self:
        """The state once a site withdrew, by its own notice.

        Args:
            name: The site.
            content: Of the notice's file.
            now: In UTC.

        Raises:
            ConfigError: no such site is enrolled, or no notice.
            SignatureInvalid: the site's present identity key did not sign it.
            VerificationFailed: a notice of another site or study, or dated in the future.
        """
        self.notice_of(name, content, now)
        return self.without(name, now, "withdrew")

    def notice_of(self, name: str, content: bytes, now: datetime) -> Notice:
        """What a site's notice says; where it left by one before, that one's. Raises as :meth:`without_withdrawn`."""
        enrolled: tuple[SiteKeys, ...] = tuple(site for site in self.sites if site.name == name)
        present = enrolled or tuple(keys for keys in self.retired if keys.name == name and keys.why == "withdrew")[-1:]
        if not present:
            raise self._unknown(name)
        signer, old = unverified(content)[0], [keys for keys in self.retired if keys.name == name]
        if any(key_id(keys.identity()) == signer for keys in old if keys not in present):
            raise SignatureInvalid(
                f"a notice signed with keys of site '{name}' that no longer count",
                expected="its present identity key",
                remedy="Have the site join by the newest roster and run 'fedphantom site withdraw' again.",
            )
        said = opened(NOTICE, content, [keys.identity() for keys in present])
        if (said.site, said.study_digest) != (name, self.study_digest):
            raise VerificationFailed(
                "a notice of another study" if said.site == name else "a notice of another site than the one named",
                expected=f"the notice by which site '{name}' leaves this study",
                remedy="Check the name and the file. Nothing was changed.",
            )
        if datetime.fromisoformat(said.withdrawn) > now + _GRACE:
            raise VerificationFailed(
                "a notice dated in the future",
                expected="clocks of site and coordinator within a day of each other",
                remedy="Set the clock that is wrong; if it is the site's, ask it by telephone and revoke it.",
            )
        return said

    def _unknown(self, name: str) -> ConfigError:
        known = ", ".join(site.name for site in self.sites) or "none"
        how = self.left().get(name)
        return ConfigError(
            f"no site '{name[:40]}' is enrolled or invited" + (f": it {_LEFT[how]} already" if how else ""),
            expected=f"one of those that are; enrolled: {known}",
            remedy="Hand out DIR/roster.dsse.json, which names it no more." if how else "Check the name.",
        )

    def _changed(self, now: datetime, **parts: object) -> Self:
        return self.model_copy(update={**parts, "serial": self.serial + 1, "changed": time_text(now)})

    def _voided(self, name: str) -> tuple[SentInvitation, ...]:
        return tuple(
            sent.model_copy(update={"state": "void"}) if (sent.site, sent.state) == (name, "open") else sent
            for sent in self.invitations
        )

    def _invitation_of(self, request: EnrolmentRequest) -> SentInvitation:
        content, sent = request.content, self.by_token(request.content.token)
        asked = (self.study_digest, content.invitation, content.keys.name)
        if sent is None or asked != (request.study_digest, sent.digest, sent.site):
            raise VerificationFailed(
                "a request by an invitation that this coordinator did not send, or sent to another site",
                expected="study, invitation, token and site name of one invitation in this folder",
                remedy="Ask the site which invitation it used; invite it if it has none of yours.",
            )
        return sent

    def _refuse_spent(self, sent: SentInvitation, now: datetime) -> None:
        if sent.state != "open":
            newer = [other for other in self.invitations[self.invitations.index(sent) :] if other.site == sent.site][1:]
            if sent.state == "void" and newer:
                raise self._replaced(sent, newer[-1], now)
            why = {"used": "was used already", "void": "was revoked"}[sent.state]
            raise PolicyRefused(
                f"a request by an invitation that {why}",
                expected="one request for every invitation",
                remedy="If the site stands on DIR/roster.dsse.json by this very request, hand that out. Else, if it did"
                " not send it twice itself, find out who did; invite it again if it did."
                if sent.state == "used"
                else "If the site is to take part after all, invite it again: 'fedphantom server invite'.",
            )
        if sent.expires < time_text(now):
            raise SignatureInvalid(
                f"a request by an invitation that expired on {sent.expires[:10]}",
                expected="a request before its last moment",
                remedy="Invite the site again: 'fedphantom server invite'.",
            )

    def _replaced(self, sent: SentInvitation, newest: SentInvitation, now: datetime) -> PolicyRefused:
        if newest.state == "open" and newest.expires >= time_text(now):
            remedy = (
                "Have the site run 'fedphantom site init' with the newest, in the folder that it has, and send the"
                " request that this writes. The newest lies in DIR/invitations; its name begins with"
                f" {newest.digest[:8]}."
            )
        elif any(site.name == sent.site for site in self.sites):
            remedy = "Nothing, if the site itself asked twice: by the newest it is enrolled already."
        else:
            remedy = "The newest cannot be used any more either. Invite the site again: 'fedphantom server invite'."
        return PolicyRefused(
            f"a request made for an older invitation of site '{sent.site}', issued {sent.issued}; a newer one was"
            f" written since, issued {newest.issued}",
            expected="a request made for the newest invitation of the site: each makes the ones before it void",
            remedy=remedy,
        )

    def _renewed(
        self, request: EnrolmentRequest, sent: SentInvitation, before: EnrolledSite | None, now: datetime
    ) -> EnrolledSite:
        name = request.content.keys.name
        if before is None or sent.state != "used":
            raise PolicyRefused(
                f"a renewal for site '{name}', which is not enrolled",
                expected="a site that is, by the invitation that it names",
                remedy="If it was revoked, it stays so until it is invited again.",
            )
        request.refuse_stranger(before.identity())
        if not before.active(now):
            raise SignatureInvalid(
                f"a renewal signed by keys that expired on {before.expires[:10]}",
                expected="a renewal before the enrolment's last moment",
                remedy="Revoke the site, and invite it again.",
            )
        return before

    def _refuse_known(self, keys: SiteKeys) -> None:
        known: tuple[SiteKeys, ...] = (*self.sites, *self.retired)
        for one in known:
            if keys.node_key == one.node_key or keys.identity_key == one.identity_key:
                word = one.why if isinstance(one, RetiredKeys) else "in use"
                raise PolicyRefused(
                    f"a request with a key of site '{one.name}' that is {word}",
                    expected="keys made for this request",
                    remedy="Ask the site for a request with new keys. Two sites with one key would be one site.",
                )


def parse_membership(content: bytes) -> Membership:
    """Read the state's file. Raises VerificationFailed where it was damaged."""
    try:
        return Membership.model_validate_json(content)
    except ValidationError:
        raise VerificationFailed(
            "a damaged registry.json",
            expected="the registry as it was written",
            remedy="Restore registry.json and journal.jsonl from the same backup.",
        ) from None


def _refuse_impossible_date(request: EnrolmentRequest, sent: SentInvitation, now: datetime) -> None:
    created = datetime.fromisoformat(request.content.created)
    if not datetime.fromisoformat(sent.issued) - _GRACE <= created <= now + _GRACE:
        raise VerificationFailed(
            "a request dated before its invitation, or in the future",
            expected="clocks of site and coordinator within a day of each other",
            remedy="Set the clock that is wrong, and ask the site for its request again.",
        )


def _token_digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _retired(site: EnrolledSite, now: datetime, why: Literal["renewed"] | Leaving) -> RetiredKeys:
    return RetiredKeys(
        name=site.name,
        node_key=site.node_key,
        identity_key=site.identity_key,
        retired=time_text(now),
        why=why,
    )
