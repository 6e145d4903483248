"""The last look at a release's texts: no identifier, no site's name, no date but those that it tells on purpose.

Told on purpose are the day of packing, the last days of keys and the days on which thresholds were overridden,
whatever the declared public sources and the study say of themselves, and the site names to which the study declares a
public weight (they stand in the header of a weights file).

What cannot be told from chance is not looked for: an identifier of under four characters inside a sentence, unless it
mixes letters and digits (``7`` is a number there); one inside a longer word; one of under eight among the numbers of a
weights file; a word that the release itself uses (``public``, ``T1``); a date among JSON's numbers, where a seed may
look like one, or one written out in another language than English.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from ...common.cohorts.identifying import text_is_identifying
from ...common.cohorts.roles import CoinRecord, Role
from ...common.federation import Sharing
from ...common.labels.chain import PublicSources
from ...common.site_folder import SITE_FILE
from ...common.study import Study
from ...common.toml_text import parse_toml
from ..approving_site import ApprovingSite
from ..evidence import ATTACKS, BINDING, BLIND
from ..policy import TIERS
from ..statement import AuditClaim

_LONG, _BINARY = 4, 8
_YEAR, _MONTH, _DAY = r"(?:18|19|20)\d\d", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
_NAMED = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    rf"(?<![0-9A-Za-z])({_YEAR}([-./]){_MONTH}\2{_DAY}|{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    rf"|{_DAY}([-./]){_MONTH}\3{_YEAR}|{_MONTH}([-./]){_DAY}\4{_YEAR}"
    rf"|{_DAY}\.? {_NAMED} {_YEAR}|{_NAMED} {_DAY},? {_YEAR})(?![0-9A-SU-Z])",
    re.IGNORECASE,
)
"""ISO 8601, a time after it or not, DICOM's YYYYMMDD, and what people write, in English."""
_SUBJECT = re.compile(r"(?<![0-9A-Za-z])sub-[0-9A-Za-z]", re.IGNORECASE)
_RELEASED = re.compile(r"(?<![0-9A-Za-z])sub-[0-9a-f]{16}(?![0-9A-Za-z])")
"""The random name that a release gives one of its volumes: a person may speak of that."""
_MIXED = re.compile(r"(?=.*[A-Za-z])(?=.*[0-9])")
_OWN_WORDS = frozenset(
    (*ATTACKS, BLIND, *BINDING, *TIERS, *get_args(Role), *get_args(Sharing), "public", "synthetic", "site")
)


@dataclass(frozen=True)
class TextScan:
    """What no text of a release may hold.

    Attributes:
        identifiers: Of the run's patients.
        sites: Names of the run's sites.
        own: Words that the release uses itself.
        dates: Told on purpose.
    """

    identifiers: frozenset[str]
    sites: frozenset[str]
    own: frozenset[str]
    dates: frozenset[str]

    @classmethod
    def of(cls, run: Path, study: Study, public: PublicSources, told: Iterable[str]) -> Self:
        """From the coin records and site files under a run; dates in ``told`` are told on purpose."""
        told = [*told, study.model_dump_json(), public.model_dump_json()]
        own = _OWN_WORDS | {study.name, *study.channels, *study.labels, *study.evaluation_regions}
        return cls(
            identifiers=frozenset(_identifiers(run)) - own,
            sites=frozenset(_sites(run)) - own - frozenset(study.federation.declared_weights or {}),
            own=own,
            dates=frozenset(date for text in told for date in _dates(text)),
        )

    def problem(self, name: str, content: bytes) -> str | None:
        """What a file holds that it may not, in words that repeat none of it; None where nothing was found."""
        if name.endswith(".nii.gz"):
            return None  # its header is judged field by field
        text = content
        if name.endswith(".safetensors"):
            length = int.from_bytes(content[:8], "little")
            text, numbers = content[8 : 8 + length], content[8 + length :]
            if any(one.encode() in numbers for one in self.identifiers | self.sites if len(one) >= _BINARY):
                return "a patient's identifier or a site's name among the numbers of a weights file"
        strings = list(_strings(text.decode(errors="replace")))
        if _holds(strings, self.identifiers):
            return "a patient's identifier in a text of the release"
        if _holds(strings, self.sites):
            return "a site's name in a text of the release"
        if any(date not in self.dates for string in strings for date in _dates(string)):
            return "a date in a text of the release"
        return None


def days_told(claim: AuditClaim, sites: Iterable[ApprovingSite]) -> Iterator[str]:
    """Dates that a release tells of its policies."""
    for site in sites:
        yield from (signer.expires for signer in site.signers)
        yield from (override.on for override in site.overrides)
    yield from (override.on for override in claim.overrides)


def names_someone(run: Path, text: str) -> bool:
    """Whether a person's sentence could tell of whom it speaks: it holds a date, a record number, a scan's label in a
    cohort, or a patient or site that the files under a run or site know.

    Persons' names are not looked for, nor an identifier that no file under the folder knows.
    """
    text = _RELEASED.sub("", text)
    if text_is_identifying(text) or _dates(text) or _SUBJECT.search(text):
        return True
    return _holds([text], (frozenset(_identifiers(run)) | frozenset(_sites(run))) - _OWN_WORDS)


def _dates(text: str) -> list[str]:
    return [found[1] for found in _DATE.finditer(text)]


def _holds(strings: Collection[str], words: frozenset[str]) -> bool:
    inside = sorted(word for word in words if len(word) >= _LONG or _MIXED.search(word))
    pattern = re.compile(
        "|".join(rf"(?<![A-Za-z0-9.]){re.escape(word)}(?![A-Za-z0-9])" for word in inside), re.IGNORECASE
    )
    whole = {word.casefold() for word in words}
    return any(string.casefold() in whole or (inside and pattern.search(string)) for string in strings)


def _strings(text: str) -> Iterator[str]:
    """Every text in a JSON file, text within text too; of any other file its lines and their cells."""
    try:
        yield from _within(json.loads(text))
    except (ValueError, RecursionError):
        yield text
        yield from (cell for line in text.split("\n")[1:] if "\t" in line for cell in line.split("\t")[1:])


def _within(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
            if value[:1] in ("{", "["):  # the study in a weights file's header
                yield from _strings(value)
        case list():
            yield from (text for one in value for text in _within(one))
        case dict():
            yield from (text for pair in value.items() for one in pair for text in _within(one))


def _identifiers(run: Path) -> Iterable[str]:
    for path in run.rglob("*.json"):
        text = path.read_text(encoding="utf-8", errors="replace") if path.stat().st_size < 1 << 24 else ""
        if '"fedphantom coin record' in text[:100]:
            yield from CoinRecord.from_json(text).roles


def _sites(run: Path) -> Iterable[str]:
    for path in (run / SITE_FILE, *sorted(run.glob(f"sites/*/{SITE_FILE}"))):
        try:
            yield str(parse_toml(path.read_text(encoding="utf-8")).get("name", path.parent.name))
        except (OSError, ValueError):
            continue
