"""``fedphantom release``: what leaves, signed, and what others sent, verified. Heavy imports wait inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

release_app = typer.Typer(no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@release_app.callback()
def release() -> None:
    """Pack what may leave into a signed folder, or verify such a folder."""


@release_app.command("key")
def release_key(
    out: Annotated[Path, typer.Argument(help="A folder without a key.")],
) -> None:
    """Make a signing key: key.pem, which stays secret, and key.pub.pem, which recipients need."""
    from ...common.keys import generate_key

    private, public = generate_key(out)
    typer.echo(f"wrote {private} (keep it secret; it has no password) and {public}")


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
    as_json: _Json = False,
) -> None:
    """Check, pack and sign a release; exit 4 unless the audit and every volume's origin permit it.

    Every label map is made again from its public source, and every volume painted again, before it is packed.
    """
    if kind == "weights" and (public or synthetic):
        raise typer.BadParameter(
            "they would have no effect: a release of weights holds no volumes", param_hint="--public, --synthetic"
        )
    from ...common.progress import stages
    from .run import pack_run

    with stages() as begin:
        progress = begin("making every scan again")
        report = pack_run(run, out, kind, tier, key, audit, synthetic, public, progress, evaluation or ())
    typer.echo(report.to_json() if as_json else report.to_text())


@release_app.command("verify")
def release_verify(
    folder: Annotated[Path, typer.Argument(metavar="RELEASE", help="The release's folder.")],
    key: Annotated[list[Path], typer.Option(help="Public key of a signer you trust, a PEM file; repeatable.")],
    as_json: _Json = False,
) -> None:
    """Check signature, every file and every label map's declared origin, offline; exit 5 if anything is amiss."""
    from ...common.keys import load_public_key
    from .pack import verify_release

    report = verify_release(folder, [load_public_key(path) for path in key])
    typer.echo(report.to_json() if as_json else report.to_text())
