"""What voids an audit beside another generator: other code than audited, or other scans than were audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...common.errors import PolicyRefused, VerificationFailed
from ...common.installed_code import installed_code_digest
from ...common.scan_record import scans_digest
from ...common.site_folder import SiteFolder, site_material


def refuse_void(result: Mapping[str, object], folders: Sequence[SiteFolder]) -> None:
    """Hold a result against the installed code and, where sites' folders are there, against their cohorts as they are.

    That reads every scan of the cohorts: their content is what counts, not their names.

    Args:
        result: An audit's, whole.
        folders: Of the run's sites.

    Raises:
        VerificationFailed: an audit by other code, or of other scans; or a cohort that changed since it trained.
        DataError: a cohort that cannot be read.
    """
    code, installed = str(result.get("code_sha256")), installed_code_digest()
    if code != installed:
        raise VerificationFailed(
            f"an audit by other code than is installed here ({code[:12]}, here {installed[:12]})",
            expected="one by the very program that is installed",
            remedy="Run 'fedphantom audit run' again, or verify where the program that audited is installed.",
        )
    if not folders:
        return
    for folder in folders:
        try:
            site_material(folder, folder.study())
        except PolicyRefused as changed:
            raise VerificationFailed(changed.found, expected=changed.expected, remedy=changed.remedy) from None
    if result.get("scans_sha256") != scans_digest([folder.journal for folder in folders]):
        raise VerificationFailed(
            "the audit of other scans than these sites trained on",
            expected="one of the scans that their journals noted when they were first prepared",
            remedy="Run 'fedphantom audit run' on this run.",
        )
