"""Names in one of Flower's modules replaced, where that module is the one that is known here (flwr 1.41)."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence
from types import SimpleNamespace


def replace_names(module: str, said: Sequence[str], **instead: SimpleNamespace) -> bool:
    """Give one of Flower's modules other things under the names of standard modules that it imports.

    Args:
        module: Flower's, by its dotted name.
        said: What its source has to say, each word for word.
        instead: By the name that stands for the standard module of that name there.

    Returns:
        False where this Flower is not known: nothing is replaced then.
    """
    try:
        found = importlib.import_module(module)
        source = inspect.getsource(found)
    except (ImportError, OSError):
        return False
    names = vars(found)
    known = all(names.get(name) is sys.modules[name] for name in instead) and all(text in source for text in said)
    if known:
        names.update(instead)
    return known
