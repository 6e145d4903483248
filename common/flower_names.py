"""Names in one of Flower's modules replaced, where that module is the one that is known here (flwr 1.41)."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence


def replace_names(module: str, said: Sequence[str], instead: Mapping[str, object]) -> bool:
    """Give one of Flower's modules other things under names that it imported.

    Args:
        module: Flower's, by its dotted name.
        said: What its source has to say, each word for word: the uses of those names.
        instead: By the name, what is to stand there; a name that Flower did not import from elsewhere is not known.

    Returns:
        False where this Flower is not known: nothing is replaced then.
    """
    try:
        found = importlib.import_module(module)
        source = inspect.getsource(found)
    except (ImportError, OSError):
        return False
    names = vars(found)
    known = all(name in names for name in instead) and all(text in source for text in said)
    if known:
        names.update(instead)
    return known
