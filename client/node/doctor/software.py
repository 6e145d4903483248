"""Whether what is installed is what FedPhantom was made for, and calls nobody."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from .... import __version__
from ....common.flower_programs import QUIET, flower_program
from ....common.installed_code import installed_code_digest
from ..launcher import unknown_flower
from .finding import Outcome, green, red, yellow

TESTED_FLOWER = "1.41"
"""Minor release that deployed studies were tested with; a SuperNode works with a SuperLink of its own minor alone."""


def check_versions(installed: Mapping[str, str] | None = None) -> Outcome:
    """Whether every package that FedPhantom asks for is there, in a version that it asks for.

    Args:
        installed: Version by package; of this environment where it is left out.
    """
    from packaging.requirements import Requirement

    wrong = []
    for text in requires("fedphantom") or ():
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = installed[wanted.name] if installed and wanted.name in installed else version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} is {found}, needed {wanted.specifier}")
    said = f"FedPhantom {__version__}, code {installed_code_digest()[:16]}"
    fix = "Install FedPhantom again, with its constraints.txt, into an environment of its own."
    if wrong:
        return red(f"{said}; {'; '.join(wrong)}", fix)
    flower = (installed or {}).get("flwr") or version("flwr")
    said = f"{said}, flwr {flower}"
    if flower.split(".")[:2] != TESTED_FLOWER.split("."):
        return yellow(
            f"{said}: nodes work with a coordinator of the same minor release alone; {TESTED_FLOWER} was tested",
            "Ask which flwr the coordinator runs, and install the same.",
        )
    return green(said)


def check_launcher() -> Outcome:
    """Whether Flower is one whose code loading the site's launcher can take over, with its programs in place.

    Raises:
        ConfigError: Flower's programs are not there.
    """
    flower_program("flower-supernode")
    if problem := unknown_flower():
        return red(
            f"the launcher does not know this Flower: {problem}",
            f"Install flwr {TESTED_FLOWER}; until then no bundle is looked at, and no round answered.",
        )
    return green("the launcher knows this Flower: a bundle is looked at, never unpacked")


def check_telemetry(environment: Mapping[str, str]) -> Outcome:
    """Whether Flower is told to call nobody.

    The identifier that it makes for telemetry (``source`` in its home) tells nothing: Flower makes it before it looks
    at the switch.

    Args:
        environment: Of the SuperNode's process.
    """
    if on := sorted(name for name, value in QUIET.items() if environment.get(name) != value):
        return red(f"not switched off: {', '.join(on)}", "Report this: FedPhantom sets them for every process.")
    return green("telemetry, update checks and installation at run time are off")
