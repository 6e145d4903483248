"""The bundle that a coordinator sends with a run, looked at but never unpacked, imported or installed."""

from __future__ import annotations

import io
import tomllib
import zipfile

from ...common.errors import PolicyRefused
from ...common.flower_bundle import BUNDLE_FILE, bundle_text

LARGEST_BUNDLE = 64 * 1024
"""Bytes, packed and unpacked: the study's own is under two thousand."""

_ALLOWED = {BUNDLE_FILE, ".info/CONTENT"}
"""``.info/CONTENT`` lists the files with their hashes; Flower adds it."""


def check_bundle(content: bytes, study_digest: str) -> None:
    """Find that a bundle is the study's own: one configuration file, equal to what this site would have written.

    Args:
        content: The bundle as received (a zip archive).
        study_digest: Of the study that this site approved.

    Raises:
        PolicyRefused: it is anything else; says what, quoting nothing of it.
    """
    problem = _problem(content, study_digest)
    if problem:
        raise PolicyRefused(
            f"the coordinator's bundle was refused: {problem}",
            expected="the bundle of the approved study: a configuration, and no code",
            remedy="Nothing of it was unpacked or run. Ask the coordinator; compare versions and studies.",
        )


def _problem(content: bytes, study_digest: str) -> str | None:
    if len(content) > LARGEST_BUNDLE:
        return "it is larger than any bundle without code"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if len(names) != len(set(names)) or not set(names) <= _ALLOWED or BUNDLE_FILE not in names:
                return "it carries other files than a configuration"
            # The size that the archive declares is no promise: no more is read than a bundle may hold.
            with archive.open(BUNDLE_FILE) as file:
                text = file.read(LARGEST_BUNDLE + 1)
        found = tomllib.loads(text.decode())
    # Whatever its bytes make zipfile and its decompressors raise: it comes from outside, and its errors stay here.
    except Exception:
        return "it cannot be read"
    expected = tomllib.loads(bundle_text(study_digest))
    if found == expected:
        return None
    if found == {**expected, "tool": _with_study(expected, found)}:
        return "it is of another study"
    return "its configuration is not the study's"


def _with_study(expected: dict[str, object], found: dict[str, object]) -> object:
    """The ``tool`` table of a bundle of whatever study the found one names."""
    match found:
        case {"tool": {"flwr": {"app": {"config": {"study": str(digest)}}}}} if len(digest) == 64:
            return tomllib.loads(bundle_text(digest.replace('"', "")))["tool"]
        case _:
            return expected["tool"]
