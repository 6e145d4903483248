"""Cohorts that FedPhantom writes: BIDS, clean headers, whole or absent."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_folder, for_owner_alone, write_atomic
from ..errors import DataError, GeometryError
from ..volumes.grid import Grid
from ..volumes.nifti_writer import write_label_map, write_volume
from .layouts.bids import DESCRIPTION, LABEL_LOOKUP, LABEL_SUFFIX, NOT_CHANNELS, channel_key_is_plain

_STANDARD_KEYS = {"T1": "T1w", "T1c": "ce-gadolinium_T1w", "T2": "T2w", "FLAIR": "FLAIR"}


class BidsWriter:
    """Writes one cohort; it appears at ``root`` when :meth:`close` is called, and not before.

    Use it as a context manager: leaving the block closes it, an exception in the block leaves nothing.

    Args:
        root: A new or empty folder.
        grid: Every volume lies on it.
        channels: Names in the order of the arrays' first axis.
        label_names: Label name to value; every value that a label map holds.
        description: The data set's name, for a person; :meth:`describe` says more when all is known.
        synthetic: Whether the volumes come from a generator; then every sidecar says so.

    Raises:
        StorageError: ``root`` holds something already, or the disk is full, read-only or forbidden.
        DataError: two channels would have the same file name.
    """

    def __init__(
        self,
        root: Path,
        grid: Grid,
        channels: Sequence[str],
        label_names: Mapping[str, int],
        description: str,
        synthetic: bool,
    ) -> None:
        self._keys = tuple(file_key(name) for name in channels)
        if len(set(self._keys)) != len(self._keys) or not channels or not NOT_CHANNELS.isdisjoint(self._keys):
            raise DataError(
                f"channels {', '.join(channels) or '(none)'}",
                expected="at least one, with names that differ in letters and digits and do not mean a mask",
                remedy="Rename the channels in the study.",
            )
        self._grid, self._channels = grid, tuple(channels)
        self._label_names = dict(sorted(label_names.items(), key=lambda item: item[1]))
        self._description, self._synthetic = description, synthetic
        self._facts: dict[str, str] = {}
        self._sites: dict[str, str | None] = {}
        self._scans: set[str] = set()
        self._closed = False
        self._pending = contextlib.ExitStack()
        self._folder = self._pending.enter_context(atomic_folder(root))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._closed = True
            self._pending.__exit__(kind, error, trace)

    def add(
        self,
        patient_id: str,
        channels: NDArray[np.float32],
        labels: NDArray[np.uint8],
        sidecar: Mapping[str, Any],
        site: str | None = None,
        session: str | None = None,
    ) -> None:
        """Write one scan.

        Args:
            patient_id: Letters and digits, as BIDS demands; without ``sub-``.
            channels: Intensities, shape (C, X, Y, Z), float32, finite.
            labels: Label map, shape (X, Y, Z), uint8.
            sidecar: JSON object written beside every volume, e.g. the label chain.
            site: The patient's site in ``participants.tsv``.
            session: Letters and digits, for a patient with several scans.

        Raises:
            DataError: a name or label value that is not allowed, a scan added twice, a voxel that is not finite.
            GeometryError: a shape that is not the grid's.
            StorageError: the disk is full, read-only or forbidden.
        """
        stem = self._register(patient_id, session, site)
        if channels.shape != (len(self._channels), *self._grid.shape):
            raise GeometryError(
                f"channels of shape {channels.shape}",
                expected=f"{(len(self._channels), *self._grid.shape)}",
                remedy="Write volumes of the study's channels and grid.",
            )
        unknown = sorted(set(np.unique(labels).tolist()) - set(self._label_names.values()))
        if unknown:
            raise DataError(
                f"label values {unknown} without a name",
                expected=f"values among {sorted(self._label_names.values())}",
                remedy="Name every label value in the study.",
            )
        folder = self._folder / f"sub-{patient_id}" / (f"ses-{session}" if session else "") / "anat"
        content = json_bytes({**sidecar, "Synthetic": self._synthetic})
        pool = ThreadPoolExecutor(len(self._keys))  # compression is most of the work, and runs side by side
        try:
            written = [
                pool.submit(write_volume, folder / f"{stem}_{key}.nii.gz", voxels, self._grid, flush=False)
                for key, voxels in zip(self._keys, channels, strict=True)
            ]
            for one in written:
                one.result()
        finally:
            # Also after an interrupt: what is still written would make anew the folder that is about to be removed.
            pool.shutdown(cancel_futures=True)
        for key in self._keys:
            write_atomic(folder / f"{stem}_{key}.json", content, flush=False)
        write_label_map(folder / f"{stem}_{LABEL_SUFFIX}.nii.gz", labels, self._grid, flush=False)
        write_atomic(folder / f"{stem}_{LABEL_SUFFIX}.json", content, flush=False)

    def describe(self, description: str, **facts: str) -> None:
        """Exchange the data set's name for this one, and put facts beside it, at any time before :meth:`close`."""
        self._description, self._facts = description, facts

    def for_owner_alone(self) -> None:
        """Nobody else on the machine may look into the cohort."""
        for_owner_alone(self._folder)

    def close(self) -> None:
        """Write the tables and let the cohort appear under its name. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self._write_tables()
        except BaseException as error:
            self._pending.__exit__(type(error), error, error.__traceback__)
            raise
        self._pending.close()

    def _write_tables(self) -> None:
        description = dataset_description(
            self._description, self._channels, synthetic=self._synthetic, facts=self._facts
        )
        write_atomic(self._folder / DESCRIPTION, json_bytes(description))
        write_atomic(self._folder / "participants.tsv", participants_table(self._sites))
        lookup = [f"{value}\t{name}" for name, value in self._label_names.items()]
        write_atomic(self._folder / LABEL_LOOKUP, _lines(["index\tname", *lookup]))

    def _register(self, patient_id: str, session: str | None, site: str | None) -> str:
        """The scan's file stem, after its names were found fit and new."""
        names = [patient_id] if session is None else [patient_id, session]
        if not all(re.fullmatch(r"[A-Za-z0-9]+", name) for name in names) or re.search(r"[\t\r\n]", site or ""):
            raise DataError(
                "a patient, session or site name that BIDS does not allow",
                expected="letters and digits, without 'sub-' or 'ses-'; no tab or line break in a site",
                remedy="Choose another name.",
            )
        stem = f"sub-{patient_id}_ses-{session}" if session else f"sub-{patient_id}"
        if stem in self._scans or self._sites.get(patient_id, site) != site:
            raise DataError(
                "a scan added twice, or a patient under two sites",
                expected="each patient and session once, at one site",
                remedy="Give scans of one patient different sessions.",
            )
        self._scans.add(stem)
        self._sites[patient_id] = site
        return stem


def dataset_description(
    name: str, channels: Sequence[str], *, synthetic: bool, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """``dataset_description.json``: its name, who wrote it, which file keys mean other channels than they say."""
    special = special_channels(channels)
    return {
        "Name": name,
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "FedPhantom", "Version": version("fedphantom")}],
        "Synthetic": synthetic,
        **facts,
        **({"Channels": special} if special else {}),
    }


def special_channels(channels: Sequence[str]) -> dict[str, str]:
    """File key to channel where the key alone does not tell it: ``Channels`` of ``dataset_description.json``."""
    return {
        key: c for key, c in zip(map(file_key, channels), channels, strict=True) if not channel_key_is_plain(key, c)
    }


def participants_table(sites: Mapping[str, str | None]) -> bytes:
    """``participants.tsv``: patient (without ``sub-``) to site."""
    rows = [f"sub-{patient}\t{site or 'n/a'}" for patient, site in sorted(sites.items())]
    return _lines(["participant_id\tsite", *rows])


def file_key(channel: str) -> str:
    """The BIDS file name's end for a channel: the standard suffix, or the name's letters and digits."""
    return _STANDARD_KEYS.get(channel) or re.sub(r"[^A-Za-z0-9]", "", channel)


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """A JSON file's content; equal content gives equal bytes."""
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _lines(lines: Sequence[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
