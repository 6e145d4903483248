"""A study file to start from: a template, and the keys of the sites whose approval its generator will need."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from ..common.errors import ConfigError
from ..common.keys import key_id, load_public_key
from ..common.study import parse_study

_NO_KEYS = "approval_keys = []"


def new_study(template: str, approval_keys: Sequence[Path]) -> str:
    """The template's text, with these public keys' names under ``federation.approval_keys``.

    Raises:
        ConfigError: no readable key, one given twice, or a template of a network that no release can hold.
    """
    text = (files(__package__) / "study_templates" / f"{template}.toml").read_text(encoding="utf-8")
    if not approval_keys:
        return text
    if _NO_KEYS not in text:
        raise ConfigError(
            f"the template '{template}', whose network reads scans: a key would have no effect",
            expected="a study of a generator of images",
            remedy="Leave it out: such a network stays inside the study.",
        )
    names = "".join(f'\n    "{key_id(load_public_key(path))}",' for path in approval_keys)
    text = text.replace(_NO_KEYS, f"approval_keys = [{names}\n]", 1)
    parse_study(text)
    return text
