"""A site's own folder: what it is called, where its cohort and study lie, and what it keeps between rounds.

site.toml       name, cohort, study (paths; relative ones from this folder)
study.toml      the site's own copy of the study it takes part in
egress.json     what may leave, written when the folder is made
coins.json      roles and coins of its patients
cache/          prepared scans
state/          discriminator, optimisers, training state; never leaves
journal.jsonl   what happened, what left
errors.log      full text of failures; never leaves
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..common.atomic import write_atomic
from ..common.errors import ConfigError
from ..common.exchange import check_site_name
from ..common.parameters import ParameterSpec
from ..common.study import Study, parse_study, read_study
from .egress import EgressRule

SITE_FILE = "site.toml"


@dataclass(frozen=True)
class SiteFolder:
    """An opened site folder; made by :meth:`create`, read by :meth:`open`."""

    root: Path
    name: str
    cohort: Path
    study_file: Path

    @property
    def state(self) -> Path:
        """Discriminator, optimisers, training state."""
        return self.root / "state"

    @property
    def cache(self) -> Path:
        """Prepared scans."""
        return self.root / "cache"

    @property
    def coins(self) -> Path:
        """The coin record."""
        return self.root / "coins.json"

    @property
    def journal(self) -> Path:
        """The site's journal."""
        return self.root / "journal.jsonl"

    @property
    def errors(self) -> Path:
        """Full text of failures; stays here."""
        return self.root / "errors.log"

    @property
    def egress(self) -> Path:
        """What may leave."""
        return self.root / "egress.json"

    @classmethod
    def create(cls, root: Path, name: str, cohort: Path, study_text: str, generator: ParameterSpec) -> Self:
        """Make the folder, or find it as an earlier call with the same arguments left it.

        Args:
            root: The folder.
            name: The site's public name.
            cohort: The site's patients.
            study_text: TOML; copied, so that nobody changes the study under the site.
            generator: Names and shapes that may leave.

        Raises:
            ConfigError: the study does not parse, the name is not allowed, or the folder belongs to
                another site, cohort or study.
            StorageError: the disk is full, read-only or forbidden.
        """
        check_site_name(name)
        study = parse_study(study_text)
        if (root / SITE_FILE).exists():
            folder = cls.open(root)
            if (folder.name, folder.cohort, folder.study().digest()) != (name, cohort.resolve(), study.digest()):
                raise ConfigError(
                    f"the folder of site '{name}' belongs to another site, cohort or study",
                    expected="the arguments it was made with, or a new folder",
                    remedy="Choose another folder for this run.",
                )
            return folder
        write_atomic(root / "study.toml", study_text.encode())
        write_atomic(root / "egress.json", EgressRule(generator).to_json().encode())
        # Last: a folder with a site file is complete.
        lines = {"name": name, "cohort": str(cohort.resolve()), "study": "study.toml"}
        text = "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in lines.items())
        write_atomic(root / SITE_FILE, text.encode())
        return cls.open(root)

    @classmethod
    def open(cls, root: Path) -> Self:
        """Read ``site.toml``.

        Raises:
            ConfigError: there is none, or it does not hold exactly ``name``, ``cohort`` and ``study``.
        """
        try:
            table = tomllib.loads((root / SITE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            table = {}
        if table.keys() != {"name", "cohort", "study"} or not all(isinstance(v, str) for v in table.values()):
            raise ConfigError(
                "no valid site.toml in the site's folder",
                expected="a file with name, cohort and study",
                remedy="Make the folder with 'fedphantom site init'.",
            )
        check_site_name(table["name"])
        return cls(root, table["name"], root / table["cohort"], root / table["study"])

    def study(self) -> Study:
        """The site's own copy of the study. Raises ConfigError as :func:`read_study`."""
        return read_study(self.study_file)

    def egress_rule(self) -> EgressRule:
        """What may leave. Raises ConfigError when the file is missing or malformed."""
        try:
            text = self.egress.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            text = ""
        return EgressRule.from_json(text)
