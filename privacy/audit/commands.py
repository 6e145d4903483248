"""``fedphantom audit``: for the compliance officer. Heavy imports wait inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

audit_app = typer.Typer(no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@audit_app.callback()
def audit() -> None:
    """Ask whether the generator betrays who trained it."""


@audit_app.command("run")
def audit_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="What 'simulate' left, or a site's folder.")],
    policy: Annotated[Path | None, typer.Option(help="Policy file (TOML); else the controlled tier.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where audit.json goes; RUN/audit by default.")] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="The cohort to be released; 'synthetic' in or beside RUN by default.")
    ] = None,
    public: Annotated[Path | None, typer.Option(help="Public cohort standing in as reference patients.")] = None,
    kind: Annotated[Literal["volumes", "weights"], typer.Option(help="What is to be released.")] = "volumes",
    generator: Annotated[Path | None, typer.Option(help="The generator, where RUN is a site's folder.")] = None,
    named_by: Annotated[
        Path | None,
        typer.Option(help="With --generator: the coordinator's signed statement that this site helped to train it."),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            help="The compliance officer's private key, which signs the result as the audit ends: no site approves a"
            " controlled or public release by another. Repeatable, where one audit is of several sites."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps of reference and negative controls; as the study's sites.")
    ] = None,
    negative_seeds: Annotated[int, typer.Option(min=0, max=10, help="Negative controls; 3 make a full audit.")] = 3,
    white_box: Annotated[
        bool, typer.Option("--white-box", help="Also search the weights, which takes long: weights need it to PASS.")
    ] = False,
    shadows: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also train N shadow generators (A2), which takes long; 8 to 16.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: _Json = False,
) -> None:
    """Attack the generator, check the attacks by their controls, decide; exit 6 unless PASS.

    Broken off, the same command goes on with the attack that was not finished, to the same figures, and counts as the
    same audit; where anything that it depends on has changed, it begins a further one.
    """
    from ...common.progress import progress_bar
    from .report import audit_run_command, audit_text
    from .run import AuditSizes

    with progress_bar("audit") as progress:
        result = audit_run_command(
            run,
            policy,
            out,
            synthetic,
            public,
            kind,
            generator,
            named_by,
            AuditSizes(steps, negative_seeds, white_box=white_box, shadows=shadows),
            device,
            progress,
            _say,
            key or (),
        )
    typer.echo(json.dumps(result, indent=1) if as_json else audit_text(result))
    raise typer.Exit(0 if result["verdict"] == "PASS" else 6)


def _say(text: str) -> None:
    typer.echo(text, err=True)


@audit_app.command("show")
def audit_show(
    result: Annotated[Path, typer.Argument(help="audit.json or an earlier result, or their folder or RUN.")],
    as_json: _Json = False,
) -> None:
    """Show an audit's verdict, attacks and controls; exit 5 if the verdict is better than its own figures allow.

    A folder's latest audit is audit.json; each one's own result is beside it, as audit-001.json and so on.
    """
    from .report import stored_text
    from .run import read_consistent_result, result_file

    file = result_file(result)
    content = read_consistent_result(file)
    typer.echo(json.dumps(content, indent=1) if as_json else stored_text(content))
    if not as_json:
        typer.echo(f"Shown as '{file}' has it; whether it is what the audit left, 'fedphantom audit verify' says.")


@audit_app.command("report")
def audit_report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="What was audited: a run's folder, or a site's.")],
    out: Annotated[Path, typer.Option(help="A new folder for both pages.")],
    audit: Annotated[
        Path | None, typer.Option(help="The audit's result file; RUN/audit/audit.json by default.")
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="The audited cohort; 'synthetic' in or beside RUN by default.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="evaluation.json of 'evaluate' on the audited volumes; else the page says none.")
    ] = None,
    generator: Annotated[Path | None, typer.Option(help="The generator, where RUN is a site's folder.")] = None,
    as_json: _Json = False,
) -> None:
    """Write an audit's page for who is to approve: report.html for the site, report-shareable.html without patients.

    The audit is held against the run, its journals and the volumes first; exit 5 where it speaks of others. Both pages
    are noted in the sites' journals: 'release approve --report' takes no file that the site's does not tell of.
    """
    from ..report.audited_run import report_audit

    internal, shareable = report_audit(run, out, audit, synthetic, evaluation, generator)
    paths = {"internal": str(internal), "shareable": str(shareable)}
    typer.echo(json.dumps(paths) if as_json else f"wrote {internal} (it stays at the site) and {shareable}")


@audit_app.command("share")
def audit_share(
    site: Annotated[Path, typer.Argument(metavar="SITE", help="The site's folder.")],
    generator: Annotated[Path, typer.Option(help="The generator that was audited.")],
    key: Annotated[Path, typer.Option(help="The compliance officer's private key, which the study names.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new file, for the coordinator.")],
    audit: Annotated[Path | None, typer.Option(help="The result file; SITE/audit/audit.json by default.")] = None,
    as_json: _Json = False,
) -> None:
    """Sign what of this site's own audit the other institutions may see: figures about groups, none about a patient.

    Exit 5 where the site's journal does not tell of that audit of this generator, the study does not name the key, or
    another one signed the audit as it ended; 4 where none did ('audit run --key').
    """
    from ...common.printed import print_made
    from ..joint.sharing import share_audit

    print_made(share_audit(site, generator, key, out, audit), as_json=as_json)


@audit_app.command("combine")
def audit_combine(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The coordinator's folder of the run.")],
    extract: Annotated[list[Path], typer.Argument(metavar="EXTRACT", help="Files of 'audit share', one of each site.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new file, to be packed and approved by.")],
    policy: Annotated[Path | None, typer.Option(help="Policy file (TOML); else the controlled tier.")] = None,
    as_json: _Json = False,
) -> None:
    """Decide over all sites' patients from what each site signed of its own audit; exit 6 unless PASS.

    Says first, on the error stream, what audits of these sizes can show together.

    Exit 5 for an extract that no officer signed whom the study names, or of another generator; 4 if one is missing.
    """
    from ..joint.combination import combine_audits
    from .report import audit_text, combined_power_text

    result = combine_audits(run, extract, policy, out, lambda *told: _say(combined_power_text(*told)))
    typer.echo(json.dumps(result, indent=1) if as_json else audit_text(result))
    raise typer.Exit(0 if result["verdict"] == "PASS" else 6)


@audit_app.command("verify")
def audit_verify(
    result: Annotated[Path, typer.Argument(help="audit.json, or its folder.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run it should speak of, or a site's folder.")],
    generator: Annotated[Path | None, typer.Option(help="The generator, where RUN is a site's folder.")] = None,
) -> None:
    """Check that an audit speaks of this run's generator, scans and code; exit 5 if it does not.

    It says by whose keys the result was signed as the audit ended ('audit run --key'), or that nobody signed it: what
    is unsigned whoever can write to a site's folder may have made up, line in the journal and all.

    It reads the sites' cohorts: an audit is void once a scan or the program has changed.
    """
    from .report import verified_text

    typer.echo(verified_text(result, run, generator))
