"""The mark in an audit's page that says which audit it is about, so that no other page is signed in its place.

It tells a mistaken file from the right one. Whoever writes a page by hand can write a mark too: that the page says
what the audit found is known to the officer who made it with ``audit report``.
"""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = "fedphantom-audit"
_HEAD_END: Final = "</head>"
_MARK = re.compile(rf'<meta name="{_NAME}" content="([0-9a-f]{{64}})">')


def marked(page: str, audit_sha256: str) -> str:
    """The page with the SHA-256 of its audit's result file in its head."""
    return page.replace(_HEAD_END, f'<meta name="{_NAME}" content="{audit_sha256}">\n{_HEAD_END}', 1)


def audit_of_page(content: bytes) -> str | None:
    """Which audit a page says it is about; None for a file without exactly one mark in its head."""
    head, end, _ = content.decode("utf-8", errors="replace").partition(_HEAD_END)
    found = _MARK.findall(head)
    return found[0] if end and len(found) == 1 else None
