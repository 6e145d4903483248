"""An act that is refused, with the exit code and the words that it is refused with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedphantom.common.errors import FedPhantomError


def refused(code: int, words: str, act: Callable[[], object]) -> None:
    with pytest.raises(FedPhantomError, match=words) as caught:
        act()
    assert caught.value.exit_code == code
