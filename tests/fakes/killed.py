"""The end of a process, at a moment at which it was to put a file in place."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_at(moment: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Do it, and end it at a moment at which a file was to be put in place; whether it came that far."""
    left, replace = [moment], os.replace

    def counting(*paths: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        replace(*paths)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", counting)
        try:
            act()
        except Killed:
            return True
    return False
