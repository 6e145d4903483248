"""``server export`` and ``server import``: rounds with sites that have no network, file by file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...common.atomic import write_atomic
from ...common.counted import counted
from ...common.errors import ConfigError, OutputTaken, PolicyRefused, VerificationFailed, about
from ...common.output_place import refuse_other
from ...common.round_files.reply import REPLY
from ...common.round_files.signed_tensors import refuse_nothing
from ...common.storage import CHOOSE_ANOTHER, refuse_unwritable
from ..simulation import MakeInitial
from .round_under_way import RoundUnderWay, round_under_way


@dataclass(frozen=True)
class RequestExported:
    """A request to hand to every site.

    Attributes:
        round: 1-based.
        rounds: Of the study.
        file: Where it lies.
        sha256: Of the file; replies name it.
        roster: Serial of the roster that it was made by.
        sites: Those that are asked.
        answered: Those of them whose replies are here already.
    """

    round: int
    rounds: int
    file: str
    sha256: str
    roster: int
    sites: tuple[str, ...]
    answered: tuple[str, ...]

    def text(self) -> str:
        """For a terminal."""
        missing = [site for site in self.sites if site not in self.answered]
        here = f"; replies of {', '.join(self.answered)} are here" if self.answered else ""
        name = shlex.quote(Path(self.file).name)
        return "\n".join(
            (
                f"round {self.round} of {self.rounds}: hand {shlex.quote(self.file)} to"
                f" {', '.join(missing) or 'nobody: every site has answered'}{here}",
                f"each runs: fedphantom site train SITE_DIR {name} --out reply.safetensors",
                f"it was made by roster number {self.roster}: a site that goes by an older one has to join by it first",
                "then: fedphantom server import DIR FILE...",
            )
        )


@dataclass(frozen=True)
class RepliesImported:
    """Where a round stands after replies were taken in.

    Attributes:
        round: 1-based.
        rounds: Of the study.
        answered: Sites whose replies are here, or were counted where the round is done.
        missing: Site to why it has no reply here, or had none.
        done: Whether the round is.
        quorum: Fewest replies that make a round.
        generator: The study's result, once all rounds are done and where weights left the sites.
    """

    round: int
    rounds: int
    answered: tuple[str, ...]
    missing: Mapping[str, str]
    done: bool
    quorum: int
    generator: str | None

    def text(self) -> str:
        """For a terminal."""
        without = "; ".join(f"{site}: {why}" for site, why in self.missing.items())
        here = f"{counted(len(self.answered), 'reply', 'replies')} ({', '.join(self.answered) or 'of nobody'})"
        if self.done:
            first = f"round {self.round} of {self.rounds} is done with {here}" + (
                f", without {without}" * bool(without)
            )
            if self.round < self.rounds:
                return f"{first}\nnext: fedphantom server export DIR"
            return f"{first}; it was the last. generator: {self.generator or 'none left a site'}"
        enough = len(self.answered) >= self.quorum
        close = "or go on without them: fedphantom server import DIR --close"
        return (
            f"round {self.round} of {self.rounds} has {here}; it lacks {without}\n"
            "when they come: fedphantom server import DIR FILE...; "
            + (close if enough else f"a round needs {self.quorum}")
        )


def export_request(root: Path, out: Path | None, initial: MakeInitial, now: datetime) -> RequestExported:
    """Write the request of the next round; called again before that round is done, the same file.

    Args:
        root: The coordinator's folder.
        out: A folder to write it to as well; what else is there stays.
        initial: Makes the generator that the first round starts from.
        now: In UTC.

    Raises:
        ConfigError: no coordinator's folder, a study with secure aggregation, fewer sites than the quorum, a study
            whose rounds are all done, or a coordinator that serves over the network.
        VerificationFailed: another study than the folder was made for, or a registry that was changed.
        OutputTaken: another file lies where the copy is to be written.
        StorageError: the disk is full, read-only or forbidden.
    """
    if out:
        with about("--out"):
            _refuse_no_folder(out)
    with round_under_way(root, initial, now) as under_way:
        asked = under_way.make_request()
        kept = under_way.request_file
        if out:
            with about("--out"):
                refuse_other(out / kept.name, kept)
            write_atomic(out / kept.name, asked.content)
        sites = under_way.awaited
        return RequestExported(
            round=asked.request.round,
            rounds=under_way.rounds.study.training.rounds,
            file=str((out or kept.parent) / kept.name),
            sha256=asked.digest,
            roster=asked.roster,
            sites=sites,
            answered=tuple(site for site in sites if under_way.why_missing(asked, site) is None),
        )


def import_replies(root: Path, replies: Sequence[Path], now: datetime, *, close: bool = False) -> RepliesImported:
    """Take replies in, one by one; do the round once every site has answered, or sooner where that is asked for.

    Sites that were revoked or withdrew are waited for no longer.

    A file that is refused ends it; what was taken in before it stays. Called again, what is here already changes
    nothing, and what was cut off goes on.

    Args:
        root: The coordinator's folder.
        replies: From sites; there may be none.
        now: In UTC.
        close: Go on without sites that have not answered, once the quorum has.

    Raises:
        ConfigError: no round was asked by a file, or as :func:`export_request`.
        SignatureInvalid: a reply that no enrolled site signed, or another than it names, or with revoked keys.
        VerificationFailed: a reply of another study, to another request or round, or changed since.
        DataError: no reply at all, or one that cannot count; says why.
        PolicyRefused: another reply of a site whose reply is here; or ``close``, or too few sites left, below the
            study's quorum.
        StorageError: the disk is full, read-only or forbidden.
    """
    for reply in replies:
        with about("FILE"), about(reply.name):
            refuse_nothing(REPLY, reply)
    with round_under_way(root, None, now) as under_way:
        if under_way.rounds.finished:
            under_way.finish()
        asked = under_way.request()
        if asked is None:
            return _done(under_way, late=replies)
        for reply in replies:
            with about("FILE"), about(reply.name):
                under_way.keep(asked, reply)
        why = {site: under_way.why_missing(asked, site) for site in under_way.rounds.sites}
        answered = tuple(site for site, problem in why.items() if problem is None)
        missing = {site: problem for site, problem in why.items() if problem is not None}
        study = under_way.rounds.study
        quorum = study.federation.quorum
        if missing.keys() & set(under_way.awaited) and not close:
            number, rounds = asked.request.round, study.training.rounds
            return RepliesImported(number, rounds, answered, missing, False, quorum, None)
        if len(answered) < quorum:
            here, lacks = counted(len(answered), "reply", "replies"), "; ".join(f"{s}: {p}" for s, p in missing.items())
            raise PolicyRefused(
                f"round {asked.request.round} has {here}, where the quorum asks for {quorum} (missing: {lacks})",
                expected=f"{counted(quorum, 'reply', 'replies')} or more, the study's quorum, before a round is closed",
                remedy=f"Get replies that are missing until there are {quorum}, then import them: 'fedphantom server"
                " import DIR FILE... --close'."
                if len(under_way.awaited) >= quorum
                else "Too few sites are left: the study ends here, unless one that left is invited again.",
            )
        under_way.complete(asked)
        return _done(under_way)


def _done(under_way: RoundUnderWay, late: Sequence[Path] = ()) -> RepliesImported:
    """What the round that was done last came to.

    Raises:
        VerificationFailed: replies although no round was asked since.
        ConfigError: none was asked ever.
    """
    rounds = under_way.rounds
    for reply in late:
        with about("FILE"), about(reply.name):
            raise VerificationFailed(
                f"a reply where no round is under way after {counted(rounds.checkpoint.round, 'round')}",
                expected="a reply to a request that was written here since",
                remedy="If it was imported before, it was counted then; else it came too late."
                + ("" if rounds.finished else " The next round begins with 'fedphantom server export'."),
            )
    if not rounds.checkpoint.history:
        raise ConfigError(
            "no request of round 1 that sites could have answered",
            expected="one that was written before",
            remedy="Write it with 'fedphantom server export'.",
        )
    record, study = rounds.checkpoint.history[-1], rounds.study
    result = rounds.folder.result(study) if rounds.finished else None
    return RepliesImported(
        round=record.round,
        rounds=study.training.rounds,
        answered=record.sites,
        missing=record.left_out,
        done=True,
        quorum=study.federation.quorum,
        generator=str(result) if result else None,
    )


def _refuse_no_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise OutputTaken("a file where a folder is to be", expected="a folder", remedy=CHOOSE_ANOTHER)
    refuse_unwritable(out)
