"""Text in headers and file names that looks as if it named a patient. Suspicions, not proof."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..volumes.nifti import Header

_SOFTWARE_STAMP = re.compile(r"none|(FSL)?[3-6]\.0(\.\d{1,2})?(:[0-9a-f]{6,10})?|FSL[3-6]\.\d|nibabel", re.IGNORECASE)
"""What common tools write into ``descrip`` and ``aux_file`` and no patient can be told by."""

_DATE = re.compile(
    r"(?<!\d)(?:(?:19|20)\d{2}[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[1-9]|[12]\d|3[01])[-_.](?:0[1-9]|1[0-2])[-_.](?:19|20)\d{2})(?!\d)"
)
_RECORD_NUMBER = re.compile(r"(?<!\d)(?:\d{7,}|\d{3}-\d{2}-\d{4})(?!\d)")
_UID = re.compile(r"(?<![\d.])[012](?:\.\d+){5,}")
_PERSON = re.compile(
    r"[A-Za-z]{2,}\^[A-Za-z]+|(?:^|[_\s-])[A-Z][a-z]{2,}[_,\s-]+[A-Z][a-z]{2,}(?=$|[_\s.-])"
    r"|^sub-[A-Z][a-z]{2,}[A-Z][a-z]{2,}(?=$|[_.])"
)
_WORD = re.compile(
    r"(?:^|[^a-z])(?:mrn|ssn|dob|patient[_\s-]?name|birth[_\s-]?date|accession)(?=$|[^a-z])", re.IGNORECASE
)


def header_is_identifying(header: Header) -> bool:
    """Whether the header holds an extension, or free text other than a known tool's version stamp."""
    return bool(header.extensions) or any(not _SOFTWARE_STAMP.fullmatch(text) for text in header.text.values())


def name_is_identifying(parts: Iterable[str]) -> bool:
    """Whether a file's or folder's name holds a date, a record number, a DICOM UID or a person's name.

    Args:
        parts: The path's parts below the cohort's folder.
    """
    patterns = (_DATE, _RECORD_NUMBER, _UID, _PERSON, _WORD)
    return any(pattern.search(part) for part in parts for pattern in patterns)


def text_is_identifying(text: str) -> bool:
    """Whether a person's sentence holds a date, a record number, a DICOM UID or such a number's name.

    Names of persons are not looked for: a sentence begins with a capital, and institutions have two.
    """
    return any(pattern.search(text) for pattern in (_DATE, _RECORD_NUMBER, _UID, _WORD))
