"""Folders of label maps, each with its chain beside it.

label-00001_dseg.nii.gz   a label map on the study's grid
label-00001_dseg.json     {"LabelChain": {...}}
public-labels.json        the sources declared public
dseg.tsv                  what the values mean in the study that they were made under
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ..atomic import atomic_folder, write_atomic
from ..cohorts.layouts import read_cohort
from ..cohorts.layouts.bids import LABEL_LOOKUP
from ..errors import DataError, GeometryError, VerificationFailed, about
from ..study import Study
from ..volumes.grid import Affine, Grid, Spacing
from ..volumes.nifti import Damaged, is_nifti, nifti_stem, read_header, read_label_map
from ..volumes.nifti_writer import write_label_map
from ..volumes.placement import SPACING_TOLERANCE, canonical_grid, place_labels
from .chain import CHAIN_KEY, LabelChain, LabelSource, PublicSources
from .diversity import ThinnedMaps
from .remapping import remap
from .sampler import LabelSampler, SampledLabels

PUBLIC_LABELS = "public-labels.json"
_NAMED = 10
"""Values that a message names."""
UNDECLARED = "undeclared"
"""Name of the private source of a label map that came without a chain."""


def write_label_folder(
    out: Path,
    sampler: LabelSampler,
    count: int,
    study: Study,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ThinnedMaps:
    """Write samples 0 to ``count - 1`` of a seed, numbered from 1, and their sources.

    Args:
        out: A new or empty folder.
        sampler: Where they come from.
        count: How many, ≥ 1.
        study: The sampler's.
        seed: ≥ 0.
        progress: Called with (done, total).

    Returns:
        What their diversity is told from.

    Raises:
        StorageError: ``out`` holds something already, or the disk is full, read-only or forbidden.
    """
    thinned = ThinnedMaps()
    with atomic_folder(out) as folder:
        for index in range(count):
            sampled = sampler.sample(seed, index)
            write_numbered(folder, index + 1, sampled, study.volume_grid())
            thinned.add(sampled.labels)
            progress(index + 1, count)
        write_sources(folder, sampler.sources())
        write_label_names(folder, study)
    return thinned


def write_numbered(folder: Path, number: int, sampled: SampledLabels, grid: Grid) -> None:
    """Write one label map and its chain into a folder that is being made."""
    stem = f"label-{number:05d}_dseg"
    write_label_map(folder / f"{stem}.nii.gz", sampled.labels, grid, flush=False)
    write_atomic(folder / f"{stem}.json", _json({CHAIN_KEY: sampled.chain.model_dump(mode="json")}), flush=False)


def write_sources(folder: Path, sources: PublicSources) -> None:
    """Write the declaration of public sources."""
    write_atomic(folder / PUBLIC_LABELS, _json(sources.model_dump(mode="json")), flush=False)


def write_label_names(folder: Path, study: Study) -> None:
    """Write what the values of a folder's label maps mean."""
    write_atomic(folder / LABEL_LOOKUP, _names(study), flush=False)


def refuse_other_names(folder: Path, study: Study) -> None:
    """Hold the names of a folder's label values against the study's; a folder that names none passes.

    Raises:
        VerificationFailed: other names or values: made under another study.
    """
    lookup = folder / LABEL_LOOKUP
    if lookup.is_file() and lookup.read_bytes() != _names(study):
        raise VerificationFailed(
            f"label maps whose values mean something else than in this study, by their {LABEL_LOOKUP}",
            expected="label maps made under the generator's own study, or with the same labels",
            remedy="Sample or edit label maps under the study of this generator.",
        )


def _names(study: Study) -> bytes:
    rows = sorted((value, name) for name, value in study.labels.items())
    return "".join(("index\tname\n", *(f"{value}\t{name}\n" for value, name in rows))).encode()


def label_files(path: Path) -> list[Path]:
    """The NIfTI files that lie in a folder itself, by name; none where it is no folder."""
    return sorted(f for f in path.iterdir() if is_nifti(f)) if path.is_dir() else []


def label_files_or_refused(path: Path) -> list[Path]:
    """The same. Raises DataError where there is no label map, and says whether that is for want of a folder."""
    files = label_files(path)
    if not files and _is_cohort(path):
        raise DataError(
            "a cohort, where a folder of label maps is asked for",
            expected="a folder with one or more NIfTI files directly in it",
            remedy="Make one of it with 'fedphantom labels edit COHORT DIR --recipe FILE --study STUDY.toml'.",
        )
    if not files:
        raise DataError(
            "a folder without label maps" if path.is_dir() else "no folder of label maps at the path given",
            expected="a folder with one or more NIfTI files directly in it",
            remedy="Make one with 'fedphantom labels sample'.",
        )
    return files


def _is_cohort(path: Path) -> bool:
    try:
        read_cohort(path)
    except DataError:
        return False
    return True


def read_label_folder(path: Path, grid: Grid, *, resample: bool = False) -> list[SampledLabels]:
    """Read every label map of a folder, in the order of the names.

    A label map without a chain counts as private.

    Args:
        path: The folder.
        grid: The study's.
        resample: Whether label maps on another grid are brought to this one, and not refused.

    Raises:
        GeometryError: a label map on another grid.
        DataError: no label map; one that is damaged or holds values other than whole numbers from 0 to 255;
            or a sidecar that is damaged.
    """
    return list(read_label_maps(label_files_or_refused(path), grid, resample=resample))


def read_label_maps(
    files: Iterable[Path], grid: Grid, *, resample: bool, cohort_of: Study | None = None
) -> Iterator[SampledLabels]:
    """Read label maps one by one; otherwise as :func:`read_label_folder`.

    Those of a cohort hold what the remapping of ``cohort_of`` names, if that has one.
    """
    for number, file in enumerate(files, start=1):
        with nullcontext() if cohort_of else _numbered(number):
            header = read_header(file)
            if not resample and len(header.grid_shape) == 3:
                _check_grid(header.grid_shape, header.affine, grid)  # before a voxel is read
            stored, affine = read_label_map(file)
            if cohort_of and cohort_of.remapping:
                stored = remap(stored, cohort_of.remapping, cohort_of.labels)
            whole = np.isfinite(stored).all() and (stored >= 0).all() and (stored <= 255).all()
            if not whole or (stored % 1 != 0).any():
                raise DataError(
                    "a label map with values that are no labels",
                    expected="whole numbers from 0 to 255",
                    remedy="Check that the folder holds label maps and not intensities.",
                )
            chain = _read_chain(file) or _PRIVATE_CHAIN
        yield SampledLabels(place_labels(stored.astype(np.uint8), affine, grid), chain)


@contextmanager
def _numbered(number: int) -> Iterator[None]:
    """Begin what is wrong with a folder's label map with its number: its name may be a patient's."""
    with about(f"label map {number} in the order of the files' names"):
        try:
            yield
        except Damaged as damaged:
            raise DataError(
                damaged.found,
                expected=damaged.expected,
                remedy="Convert or copy that file again, or take it out of the folder.",
            ) from None


def refuse_unfit(labels: NDArray[np.uint8], number: int, study: Study) -> None:
    """Find that the label map that comes as the given number, shape (X, Y, Z), can be painted in a study.

    Raises:
        DataError: it lies on another grid, or holds values that are none of the study's labels.
    """
    what = f"label map {number}"
    if labels.shape != study.grid.shape:
        raise DataError(
            f"{what} lies on another grid, of shape {labels.shape}",
            expected=f"shape {study.grid.shape}",
            remedy="Sample label maps with the generator's own study.",
        )
    if outside := sorted(set(np.unique(labels).tolist()) - set(study.label_values)):
        raise DataError(
            f"{what} holds {'the value' if len(outside) == 1 else 'the values'} {', '.join(map(str, outside[:_NAMED]))}"
            f"{f' and {len(outside) - _NAMED} more' if len(outside) > _NAMED else ''}, outside the study's labels",
            expected=f"values among {', '.join(map(str, study.label_values))}",
            remedy="Sample or edit label maps under the generator's own study, whose labels they then hold.",
        )


def _check_grid(stored: tuple[int, ...], affine: Affine, grid: Grid) -> None:
    """Axes may be stored turned or flipped; voxel sizes and counts must be the study's.

    A study's grid has no place in any scanner: where a label map lay there, and how obliquely, is not asked.
    """
    shape, spacing = canonical_grid(stored, affine)
    same = all(abs(mm / want - 1) <= SPACING_TOLERANCE for mm, want in zip(spacing, grid.spacing_mm, strict=True))
    if shape != grid.shape or not same:
        raise GeometryError(
            f"a label map on a grid of {_grid_words(shape, spacing)}",
            expected=f"the study's grid, {_grid_words(grid.shape, grid.spacing_mm)}",
            remedy="Sample label maps under this study, or set grid.resample_labels = true in it.",
        )


def _grid_words(shape: tuple[int, ...], spacing_mm: Spacing) -> str:
    return f"{' × '.join(map(str, shape))} voxels of {' × '.join(f'{mm:g}' for mm in spacing_mm)} mm"


def _read_chain(file: Path) -> LabelChain | None:
    sidecar = file.with_name(f"{nifti_stem(file)}.json")
    if not sidecar.is_file():
        return None
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
        chain = content.get(CHAIN_KEY) if isinstance(content, dict) else None
        return None if chain is None else LabelChain.model_validate(chain)
    except (OSError, ValueError, ValidationError, RecursionError):
        raise DataError(
            "a label map's sidecar that is damaged",
            expected=f"JSON whose '{CHAIN_KEY}' holds a source and steps",
            remedy="Sample the label maps again, or remove the sidecar: the label map then counts as private.",
        ) from None


_PRIVATE_CHAIN = LabelChain(
    # No hash: whoever holds a candidate map could confirm it by one.
    source=LabelSource(kind="private", name=UNDECLARED, licence="unknown", sha256="0" * 64)
)


def _json(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()
