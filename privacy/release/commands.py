"""``fedphantom release``: what leaves, signed, and what others sent, verified. Heavy imports wait inside."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from ...common.printed import print_made
from .withdrawal_reason import Because, FreeReason

release_app = typer.Typer(no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@release_app.callback()
def release() -> None:
    """Pack what may leave into a signed folder, approve it, collect approvals, verify or withdraw it."""


@release_app.command("key")
def release_key(
    out: Annotated[Path, typer.Argument(help="A folder without a key.")],
) -> None:
    """Make a signing key: key.pem, which stays secret, and key.pub.pem, which recipients need."""
    from ...common.keys import generate_key, key_id, load_public_key

    private, public = generate_key(out)
    typer.echo(f"wrote {private} (keep it secret; it has no password) and {public}")
    typer.echo(f"its name in studies, approvals and journals: {key_id(load_public_key(public))}")


@release_app.command("policy")
def release_policy(
    out: Annotated[Path, typer.Argument(metavar="POLICY.toml", help="A file that does not exist yet.")],
    officer: Annotated[Path, typer.Option(help="The compliance officer's public key, a PEM file.")],
    expires: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Last day on which the keys count.")],
    second_person: Annotated[
        Path | None, typer.Option(help="A second person's public key: then both have to approve.")
    ] = None,
    tier: Annotated[
        Literal["internal", "controlled", "public"], typer.Option(help="The widest readership that it permits.")
    ] = "controlled",
) -> None:
    """Write a site's policy to start from: its tier's thresholds, and who may approve. Then edit it."""
    from .policy_file import write_policy

    write_policy(out, tier, officer, second_person, expires.date())
    typer.echo(f"wrote {out}; write the signers' names into it, and any override with its reason, by and on")


@release_app.command("pack")
def release_pack(
    run: Annotated[Path, typer.Argument(help="What 'simulate' left; of sites that train alone, one site's folder.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the release.")],
    key: Annotated[Path, typer.Option(help="The signer's private key, a PEM file.")],
    audit: Annotated[
        Path | None,
        typer.Option(help="Result file of 'audit run'; RUN/audit/audit.json by default, without one it is refused."),
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="Synthetic cohort, for volumes; 'synthetic' in or beside RUN by default.")
    ] = None,
    tier: Annotated[
        Literal["internal", "controlled", "public"], typer.Option(help="Whom it is meant for.")
    ] = "controlled",
    kind: Annotated[Literal["volumes", "weights"], typer.Option(help="What is released.")] = "volumes",
    public: Annotated[
        Path | None, typer.Option(help="The public cohort, where the study's label maps come from one.")
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="Result file of 'evaluate' on the audited volumes, whose means leave with it; repeatable."),
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option(
            help="A site's policy: its thresholds, and whose approval the release needs. Of an average every"
            " contributing site's; none only for --tier internal. Repeatable."
        ),
    ] = None,
    allow_faces: Annotated[
        str | None, typer.Option(metavar="REASON", help="Pack heads with a face; the reason is kept in RUN's journal.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Check, pack and sign a release; exit 4 unless audit, policies and every volume's origin permit it.

    Every label map is made again from its public source, and every volume painted again, before it is packed. Nobody
    has approved it then: that is 'fedphantom release approve', at every site behind it.
    """
    if kind == "weights" and (public or synthetic or allow_faces is not None):
        raise typer.BadParameter(
            "they would have no effect: a release of weights holds no volumes",
            param_hint="--public, --synthetic, --allow-faces",
        )
    from ...common.progress import stages
    from .run import pack_run

    with stages() as begin:
        report = pack_run(
            run,
            out,
            kind,
            tier,
            key,
            audit,
            synthetic,
            public,
            begin,
            evaluation or (),
            policy or (),
            _say,
            allow_faces,
        )
    typer.echo(report.to_json() if as_json else report.to_text())


def _say(text: str) -> None:
    typer.echo(text, err=True)


@release_app.command("approve")
def release_approve(
    folder: Annotated[Path, typer.Argument(metavar="RELEASE", help="This site's copy of the release.")],
    key: Annotated[Path, typer.Option(help="The private key of the compliance officer or the second person.")],
    policy: Annotated[Path, typer.Option(help="This site's policy, by which the release was packed.")],
    site: Annotated[Path, typer.Option(help="This site's folder: its study is compared, its journal notes it.")],
    packed_by: Annotated[Path, typer.Option(help="The packer's public key, from the packer.")],
    audit: Annotated[
        Path | None,
        typer.Option(
            help="The audit's whole result file, or one of this site's own of the generator, where 'audit run --key'"
            " left it; only --tier internal does without."
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="The audit's page, if it was read: its hash is signed.")] = None,
    as_json: _Json = False,
) -> None:
    """Sign exactly this release, for one site; exit 4 where its policy forbids it, 5 for an unknown or expired key.

    Beyond the study it rests on an audit that a compliance officer of this site signed as it ended: exit 4 where nobody
    did, 5 where somebody else.

    The signature is a small file in RELEASE/approvals: send it to the packer, who collects every site's.
    """
    from .approve import approve_release

    done = approve_release(folder, key, policy, site, packed_by, audit, report, _say)
    typer.echo(done.to_json() if as_json else done.to_text())


@release_app.command("collect")
def release_collect(
    folder: Annotated[Path, typer.Argument(metavar="RELEASE", help="The packer's copy of the release.")],
    approval: Annotated[list[Path], typer.Argument(metavar="APPROVAL...", help="Files that sites sent.")],
    key: Annotated[
        list[Path], typer.Option(help="Public key of the packer or an approver, from its holder; repeatable.")
    ],
    run: Annotated[
        Path, typer.Option(help="What it was packed from: its study names the sites, its journal notes it.")
    ],
    as_json: _Json = False,
) -> None:
    """Take sites' approvals into the release, and say whose is still missing; given again, nothing changes.

    All of them, or none where one is refused. Exit 5: one of another release, of an unknown or expired key, or changed
    on its way. Exit 4: another one by a key whose approval is here, or a release without a site that the study names.
    """
    from ...common.keys import load_public_key
    from .collect import collect_approvals

    print_made(collect_approvals(folder, approval, [load_public_key(path) for path in key], run), as_json=as_json)


@release_app.command("verify")
def release_verify(
    folder: Annotated[Path, typer.Argument(metavar="RELEASE", help="The release's folder.")],
    key: Annotated[
        list[Path], typer.Option(help="Public key of the packer or an approver, from its holder; repeatable.")
    ],
    notices: Annotated[
        Path | None, typer.Option(help="A folder of withdrawal notices: a release that one takes back is refused.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Check signatures, every file, origins and approvals, offline; exit 5 if anything is amiss, 4 if not approved.

    Exit 0: everything holds, and every contributing site's approval that the signed statement asks for is there (for a
    release inside the study that was packed without a policy: none). Exit 4: it holds, but an approval is missing; all
    the same it is shown. Exit 5: a changed file, an unknown or expired key, or a notice that withdraws it.
    """
    from ...common.keys import load_public_key
    from .folder import verify_release

    report = verify_release(folder, [load_public_key(path) for path in key], notices)
    typer.echo(report.to_json() if as_json else report.to_text())
    raise typer.Exit(4 if report.missing_approvals else 0)


@release_app.command("withdraw")
def release_withdraw(
    folder: Annotated[Path, typer.Argument(metavar="RELEASE", help="A copy of the release.")],
    key: Annotated[Path, typer.Option(help="Private key of its packer, or of one whom it names for its approval.")],
    run: Annotated[Path, typer.Option(help="The run's or site's folder, whose journal notes it.")],
    because: Annotated[Because | None, typer.Option(help="Why, in a sentence that names nobody.")] = None,
    reason: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Why, in your own words. They are public: no name of a person or site, no date. A person's name is not"
            " recognised, so it takes --names-nobody.",
        ),
    ] = None,
    names_nobody: Annotated[
        bool, typer.Option("--names-nobody", help="With --reason: you read it again, and it names no person.")
    ] = False,
    notices: Annotated[
        Path | None, typer.Option(help="Where notices are collected; 'notices' beside RELEASE by default.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Sign a notice that takes a release back, to be passed on to everyone who has it. It is public, with its reason.

    'fedphantom release verify --notices DIR' refuses what is withdrawn: the release, and where it held weights also
    every release of volumes that those painted. Exit 5 for a key that the release does not name.
    """
    from .approve import withdraw_release

    if because is not None and reason is None and not names_nobody:
        why: Because | FreeReason = because
    elif reason is not None and because is None:
        why = FreeReason(reason, names_nobody)
    else:
        raise typer.BadParameter("give --because, or --reason with --names-nobody", param_hint="--because, --reason")
    notice = withdraw_release(folder, key, why, run, notices)
    typer.echo(json.dumps({"notice": str(notice)}) if as_json else f"wrote {notice}; pass it on with its folder")
