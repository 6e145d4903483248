"""A coordinator whose run has no site's folder, and two hospitals whose audits of it are as good as the test wants."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consortium import EVERYONE
from officers import OFFICERS, a_site, key_files, policy_text, public_pem
from site_audits import a_site_audit
from tiny_release import STUDY, Releasable, release_study

from fedphantom.cli import run as fedphantom
from fedphantom.common.enrolment.signed_file import signed
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.gan.weights import load_weights, study_of
from fedphantom.common.journal import Journal
from fedphantom.common.run_result import RUN_FINISHED, RUN_STARTED
from fedphantom.privacy.audit.history import DONE
from fedphantom.privacy.joint.site_extract import SITE_EXTRACT, SiteExtract
from fedphantom.privacy.synthetic_digest import synthetic_digest

SITES = tuple(OFFICERS)


@dataclass(frozen=True)
class Joint:
    """Everybody's files: ``lead`` is the run, ``site-a`` and ``site-b`` the hospitals' folders."""

    root: Path
    made: Releasable

    @classmethod
    def make(cls, root: Path, made: Releasable, head: str = 'tier = "controlled"') -> Joint:
        root.mkdir()
        for name, key in EVERYONE.items():
            key_files(root / "keys", name, key)
        for site in SITES:
            (root / f"{site}.toml").write_text(policy_text(site, head))
            a_site(root / site, site, STUDY)
        journal = Journal(made.run / "journal.jsonl")
        journal.append(RUN_STARTED, sites=list(SITES))
        journal.append(RUN_FINISHED, generators=[parameters_digest(load_weights(made.generator)[0])])
        return cls(root, made)

    def share(self, site: str, carried: tuple[str, ...] = ("tissue",), **changes: Any) -> Path:
        """What ``audit share`` would write, of a result that the site's journal tells of."""
        study, result = release_study(), hashlib.sha256(site.encode()).hexdigest()
        audit = a_site_audit(60, 60, outliers=20, **self.of_release() | changes)
        said = SiteExtract(
            study_digest=study.digest(),
            officer_key=public_pem(OFFICERS[site]),
            parameters=parameters_digest(load_weights(self.made.generator)[0]),
            result_sha256=result,
            carried=carried,
            audit=audit,
        )
        Journal(self.root / site / "journal.jsonl").append(DONE, sha256=result)
        file = self.root / f"{site}.extract"
        file.write_bytes(signed(SITE_EXTRACT, said, OFFICERS[site]))
        return file

    def of_release(self) -> dict[str, Any]:
        return {
            "generator_sha256": self.made.generator_sha256,
            "synthetic_sha256": synthetic_digest(self.made.synthetic),
            "parameters_sha256": parameters_digest(load_weights(self.made.generator)[0]),
            "channels": study_of(load_weights(self.made.generator)[1]).channels,
        }

    def combine(self, *extracts: Path, out: str = "audit.json") -> int:
        return fedphantom(
            ["audit", "combine", str(self.made.run), *map(str, extracts), "--out", str(self.root / out), "--json"]
        )

    @property
    def audit(self) -> Path:
        return self.root / "audit.json"

    def pack(self, *more: str, tier: str = "controlled", out: str = "release") -> int:
        line = ["release", "pack", str(self.made.run), str(self.root / out), "--key", self.key("packer")]
        line += ["--synthetic", str(self.made.synthetic), "--public", str(self.made.public), "--tier", tier]
        line += [word for site in SITES for word in ("--policy", str(self.root / f"{site}.toml"))]
        return fedphantom([*line, "--audit", str(self.audit), *more])

    def key(self, who: str) -> str:
        return str(self.root / "keys" / f"{who}.pem")

    def approve(self, site: str, *more: str) -> int:
        line = ["release", "approve", str(self.root / "release"), "--key", self.key(site)]
        line += ["--policy", str(self.root / f"{site}.toml"), "--site", str(self.root / site)]
        return fedphantom([*line, "--packed-by", str(self.root / "keys" / "packer.pub.pem"), *more])

    def verify(self) -> int:
        keys = [str(self.root / "keys" / f"{who}.pub.pem") for who in ("packer", *SITES)]
        return fedphantom(["release", "verify", str(self.root / "release"), *[w for k in keys for w in ("--key", k)]])

    def edit_audit(self, **changes: Any) -> None:
        content = json.loads(self.audit.read_text())
        self.audit.write_text(json.dumps(content | changes))

    def forget(self, site: str) -> None:
        """A hospital on whose patients nothing was run."""
        shutil.rmtree(self.root / site)
        a_site(self.root / site, site, STUDY)
