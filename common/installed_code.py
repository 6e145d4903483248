"""The hash of the installed package: what a site approves is to be what it then runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

_WINGS = ("client", "common", "privacy", "server")
_KINDS = {".py", ".so", ".pyd", ".toml", ".j2"}
"""Python finds an extension module before a source file of the same name."""


def installed_code_digest(package: Path = Path(__file__).parents[1]) -> str:
    """SHA-256 (hex) over every file of the package that decides what it does, names and contents, in name order.

    Tests, benchmarks and documents beside the wings, where the package runs from its repository, do not count.
    """
    files = [path for path in package.glob("*.py") if path.is_file()]
    files += [path for wing in _WINGS for path in (package / wing).rglob("*") if path.suffix in _KINDS]
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.relative_to(package).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()
