"""Which files of a cohort show a problem, and whose scan repeats whose: for the site's own eyes, on request only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cohort import Cohort, Scan
from .layouts.assembly import DUPLICATE_PATIENT
from .scan_check import ScanFacts


@dataclass(frozen=True)
class Whereabouts:
    """Where to look for what was found.

    Attributes:
        cohort: All of it.
        facts: Of each scan, in the cohort's order.
        shared: Position of a scan that holds another patient's voxels to that of the earlier scan, and the digest.
    """

    cohort: Cohort
    facts: Sequence[ScanFacts]
    shared: Mapping[int, tuple[int, str]]

    def lines(self, code: str, positions: Iterable[int]) -> tuple[str, ...]:
        """One a scan that shows the problem, in the scans' order; paths from the cohort's folder on."""
        return tuple(dict.fromkeys(self._line(code, position) for position in sorted(positions)))

    def _line(self, code: str, position: int) -> str:
        scan = self.cohort.scans[position]
        match code:
            case "duplicate-voxels":
                earlier, digest = self.shared[position]
                again, first = (self._short(self.facts[i].digest_files[digest]) for i in (position, earlier))
                owner = self.cohort.scans[earlier].patient_id
                return f"{again} of patient {scan.patient_id} is {first} of patient {owner}"
            case _ if code == DUPLICATE_PATIENT:
                alike = [other for other in self.cohort.scans if other.scan_id == scan.scan_id]
                each = [f"patient {other.patient_id} ({self._files(_all(other))})" for other in alike]
                return f"{scan.scan_id}: {' and '.join(each)}"
            case _:
                return f"{scan.scan_id}: {self._files(self.facts[position].files.get(code) or _all(scan))}"

    def _files(self, files: Iterable[Path]) -> str:
        return ", ".join(sorted(map(self._short, files)))

    def _short(self, path: Path) -> str:
        root = self.cohort.root
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _all(scan: Scan) -> set[Path]:
    return {source.path for source in scan.channels.values()} | ({scan.label} if scan.label else set())
