"""Making a site's folder, and reading what may leave it."""

from __future__ import annotations

import json
from pathlib import Path

from ..common.atomic import write_atomic
from ..common.errors import ConfigError
from ..common.exchange import check_site_name
from ..common.gan.parameters import ParameterSpec
from ..common.site_folder import SITE_FILE, SiteFolder
from ..common.study import parse_study
from .egress import EgressRule


def create_site_folder(root: Path, name: str, cohort: Path, study_text: str, generator: ParameterSpec) -> SiteFolder:
    """Make the folder, or find it as an earlier call with the same arguments left it.

    Args:
        root: The folder.
        name: The site's public name.
        cohort: The site's patients.
        study_text: TOML; copied, so that nobody changes the study under the site.
        generator: Names and shapes that may leave.

    Raises:
        ConfigError: the study does not parse or declares no weight for the site, the name is not allowed, or the
            folder belongs to another site, cohort or study.
        StorageError: the disk is full, read-only or forbidden.
    """
    check_site_name(name)
    study = parse_study(study_text)
    if (root / SITE_FILE).exists():
        folder = SiteFolder.open(root)
        if (folder.name, folder.cohort, folder.study().digest()) != (name, cohort.resolve(), study.digest()):
            raise ConfigError(
                f"the folder of site '{name}' belongs to another site, cohort or study",
                expected="the arguments it was made with, or a new folder",
                remedy="Choose another folder for this run.",
            )
        return folder
    write_atomic(root / "study.toml", study_text.encode())
    rule = EgressRule(generator, weight=study.federation.weight_of(name))
    write_atomic(root / "egress.json", rule.to_json().encode())
    # Last: a folder with a site file is complete.
    lines = {"name": name, "cohort": str(cohort.resolve()), "study": "study.toml"}
    text = "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in lines.items())
    write_atomic(root / SITE_FILE, text.encode())
    return SiteFolder.open(root)


def read_egress_rule(folder: SiteFolder) -> EgressRule:
    """What may leave. Raises ConfigError when the file is missing or malformed."""
    try:
        text = folder.egress.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    return EgressRule.from_json(text)
