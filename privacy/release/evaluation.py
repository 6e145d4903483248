"""What synthetic volumes were worth, as it may leave with them: figures of ``fedphantom evaluate``, in one flat table.

Figures computed on real patients leave only inside the signed report (DESIGN §4.4). Here that report is the release:
:data:`FILE` is one of its signed files. Means over all test
patients pass, with their intervals; a seed's own mean, a count of failures and whatever else the result files hold do
not. Fewer than twenty test patients are told nowhere outside (PRIVACY §3.1), so there is no such file then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...common.errors import DataError, PolicyRefused, VerificationFailed
from ...common.labels.chain import Sha256
from ...common.one_line import ONE_LINE
from ..evidence import SMALLEST_CELL
from ..statement import EvaluationClaim

FILE = "evaluation.json"

Word = Annotated[str, Field(min_length=1, max_length=120), ONE_LINE]
Arm = Annotated[
    str,
    Field(
        max_length=120,
        pattern=r"^(?:real|synthetic|public|public generator|real\+synthetic|public\+synthetic"
        r"|real\+(?:0\.5|1|2|4|8|16|32|64|128|256|512|1024)x synthetic|synthetic, then 10 % real"
        r"|[0-9]{1,6} patients?(?:\+synthetic)?|synthetic, then [0-9]{1,6} patients?)(?:, no augmentation)?$",
    ),
]
"""An arm's name, as 'fedphantom evaluate' gives it. Its numbers are the caller's own (``--real-patients``) or the fixed
shares of a sweep, never a count of what a site has."""
Measure = Literal["dice", "hd95_mm", "dice_ratio_to_real", "refinding_dice", "wasserstein_1", "ms_ssim", "mmd_squared"]
Protocol = Literal["arms", "shin", "fidelity"]

_RANGES: Mapping[Measure, tuple[float, float]] = {
    "dice": (0, 1),
    "hd95_mm": (0, 1000),
    "dice_ratio_to_real": (0, 1000),
    "refinding_dice": (0, 1),
    "wasserstein_1": (0, 2),  # prepared intensities lie in [-1, 1]
    "ms_ssim": (-1, 1),
    "mmd_squared": (-2, 2),  # a Gaussian kernel is at most 1
}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FigureRow(_Record):
    """One mean.

    Attributes:
        protocol: Of ``fedphantom evaluate``.
        measure: ``dice`` and ``hd95_mm`` of a segmenter against test patients' own maps, ``dice_ratio_to_real`` its
            Dice over the real arm's; ``refinding_dice`` against the map that a scan was painted from; ``wasserstein_1``
            between grey values, ``ms_ssim`` between pairs of scans, ``mmd_squared`` between encoder features.
        of: The arm, or which scans were measured.
        region: Of the study; None where the measure has none.
        channel: None where the measure is of all.
        value: The mean; of ``mmd_squared`` the estimate.
        interval: 95 %, where there is one.
    """

    protocol: Protocol
    measure: Measure
    of: Arm
    region: Word | None = None
    channel: Word | None = None
    value: float
    interval: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """A figure that its measure cannot have, or far outside its own interval, was not measured."""
        lowest, highest = _RANGES[self.measure]
        low, high = self.interval or (self.value, self.value)
        aside = high - low + 1e-3  # a percentile interval need not hold the estimate itself
        if not lowest <= low <= high <= highest or not max(lowest, low - aside) <= self.value <= min(
            highest, high + aside
        ):
            raise ValueError("a figure that the measure cannot have")
        return self


class EvaluationExtract(_Record):
    """``evaluation.json`` of a release.

    Attributes:
        synthetic_sha256: Of the synthetic cohort's files, by content.
        test_patients: Real patients that nothing was trained on; the fewest of the protocols. Procedural ones, for whom
            nobody was scanned, count where all are.
        procedural: Whether all are procedural.
        figures: In the order of the result files.
    """

    synthetic_sha256: Sha256
    test_patients: int = Field(ge=SMALLEST_CELL)
    procedural: bool
    figures: Annotated[tuple[FigureRow, ...], Field(min_length=1, max_length=20_000)]

    def encode(self) -> bytes:
        """The file's bytes."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()

    def claim(self) -> EvaluationClaim:
        """What the signed statement says of it."""
        return EvaluationClaim(
            protocols=tuple(dict.fromkeys(row.protocol for row in self.figures)),
            test_patients=self.test_patients,
            procedural=self.procedural,
        )


def evaluation_extract(results: Sequence[bytes], synthetic_sha256: str) -> EvaluationExtract:
    """What may leave of result files: ``evaluation.json``, ``shin.json``, ``fidelity.json``.

    Args:
        results: The files' contents, at most one of each protocol.
        synthetic_sha256: Of the cohort that is to be released.

    Raises:
        DataError: no such result, or two of one protocol.
        VerificationFailed: figures of another synthetic cohort.
        PolicyRefused: fewer than twenty test patients.
    """
    rows: list[FigureRow] = []
    patients: list[int] = []
    kinds: set[bool] = set()
    for content in results:
        try:
            table = json.loads(content)
            number, procedural = _test_patients(table)
            found = list(_rows(table))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, ValidationError):
            raise _unreadable() from None
        if table.get("synthetic_sha256") != synthetic_sha256:
            raise VerificationFailed(
                "an evaluation of another synthetic cohort",
                expected="figures of the very volumes that are to be released",
                remedy="Run 'fedphantom evaluate' on the cohort named with --synthetic.",
            )
        if number < SMALLEST_CELL:
            raise PolicyRefused(
                f"an evaluation on fewer than {SMALLEST_CELL} test patients",
                expected=f"{SMALLEST_CELL} or more: figures about fewer do not leave a site",
                remedy="Leave --evaluation out, or keep more patients for test in the next study.",
            )
        if not found or any(row.protocol == found[0].protocol for row in rows):
            raise _unreadable()
        rows += found
        patients.append(number)
        kinds.add(procedural)
    if len(kinds) != 1:
        raise _unreadable()  # of one run all are of one kind
    return EvaluationExtract(
        synthetic_sha256=synthetic_sha256, test_patients=min(patients), procedural=kinds.pop(), figures=tuple(rows)
    )


def parse_evaluation(content: bytes) -> EvaluationExtract:
    """The file of a release. Raises DataError where it holds anything else than such a table."""
    try:
        extract = EvaluationExtract.model_validate_json(content)
    except ValidationError:
        raise _unreadable() from None
    if extract.encode() != content:  # an entry given twice would hide the first
        raise _unreadable()
    return extract


def _test_patients(table: Mapping[str, Any]) -> tuple[int, bool]:
    """How many persons were tested on, or procedural patients where there was no person; and whether there was none."""
    match table.get("protocol"):
        case "fidelity":
            number = table["counts"]["test_patients"]
        case "shin":
            number = table["test_patients"]
        case _:
            number = min(arm["dice"]["n_test"] for arm in table["arms"])
    procedural = table.get("procedural_test_patients", 0)
    if type(number) is not int or type(procedural) is not int or not 0 <= procedural <= number:
        raise TypeError
    return (number, True) if procedural == number else (number - procedural, False)


def _rows(table: Mapping[str, Any]) -> Iterator[FigureRow]:
    protocol = table.get("protocol", "arms")
    if protocol == "fidelity":
        yield from _fidelity(table)
        return
    for arm in table["arms"]:
        name = arm["name"]
        for region, figure in arm["per_label"].items():
            yield _row(protocol, "dice", name, figure, region)
        distances = arm.get("hd95_mm") or {region: of["hd95_mm"] for region, of in arm["regions"].items()}
        for region, figure in distances.items():
            yield _row(protocol, "hd95_mm", name, figure, region)
    for name, figure in table["ratio_to_real"].items():
        yield _row(protocol, "dice_ratio_to_real", name, figure, table["region"])


def _fidelity(table: Mapping[str, Any]) -> Iterator[FigureRow]:
    for region, found in table["refinding"].items():
        for of in ("synthetic", "real"):
            yield _row("fidelity", "refinding_dice", of, found[of], region)
    for distance in table["intensity_distance"]:
        for of in ("synthetic", "real"):
            if distance[of] is not None:
                yield FigureRow(
                    protocol="fidelity",
                    measure="wasserstein_1",
                    of=of,
                    region=distance["label"],
                    channel=distance["channel"],
                    value=distance[of],
                )
    for of in ("synthetic", "real"):
        yield _row("fidelity", "ms_ssim", of, table["ms_ssim"][of])
    yield FigureRow(protocol="fidelity", measure="mmd_squared", of="synthetic", value=table["mmd"]["squared"])


def _row(
    protocol: Protocol, measure: Measure, of: str, figure: Mapping[str, Any], region: str | None = None
) -> FigureRow:
    return FigureRow(
        protocol=protocol, measure=measure, of=of, region=region, value=figure["mean"], interval=tuple(figure["ci"])
    )


def _unreadable() -> DataError:
    return DataError(
        "no table of figures that 'fedphantom evaluate' wrote, or two of one protocol",
        expected="evaluation.json, shin.json or fidelity.json as it was written",
        remedy="Give those files with --evaluation, one of each protocol.",
    )
