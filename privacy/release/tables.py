"""The tables of a released cohort, written from the study and the released names alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from ...common.cohorts.bids_writer import special_channels
from ...common.errors import VerificationFailed
from ..cohort_facts import outside_bids


def encode_json(content: object) -> bytes:
    """The one encoding that JSON files of a release have."""
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def encode_participants(subjects: Iterable[str]) -> bytes:
    """``participants.tsv``: names, and nothing about anyone."""
    return _lines("participant_id", sorted(subjects))


def encode_labels(labels: Mapping[str, int]) -> bytes:
    """``dseg.tsv``: label value and name."""
    rows = sorted((value, name) for name, value in labels.items())
    return _lines("index\tname", [f"{value}\t{name}" for value, name in rows])


def encode_bids_ignore(channels: tuple[str, ...]) -> bytes:
    """``.bidsignore``: files of channels that BIDS has no name for; empty where there is none."""
    return "".join(f"*_{key}.{ending}\n" for key in outside_bids(channels) for ending in ("nii.gz", "json")).encode()


def encode_description(channels: Mapping[str, str]) -> bytes:
    """``dataset_description.json``.

    Args:
        channels: File key to channel name, where the key alone does not tell it.
    """
    content = {
        "Name": "FedPhantom synthetic release",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "FedPhantom"}],
        "Synthetic": True,
    }
    return encode_json(content | ({"Channels": dict(channels)} if channels else {}))


def check_labels(content: bytes, labels: Iterable[tuple[int, str]]) -> None:
    """Raises VerificationFailed for anything but these values and names of labels."""
    if content != encode_labels({name: value for value, name in labels}):
        raise _foreign("a table of labels with other entries")


def check_description(content: bytes, channels: Sequence[str]) -> None:
    """Raises VerificationFailed for a description that says anything but what these channels' files are called."""
    if content != encode_description(special_channels(channels)):
        raise _foreign("a description of the cohort with other entries")


def check_participants(content: bytes, subjects: Iterable[str]) -> None:
    """Raises VerificationFailed for a table of other than the released names."""
    if content != encode_participants(subjects):
        raise _foreign("a table of participants with other entries")


def _lines(header: str, rows: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in (header, *rows)).encode()


def _foreign(found: str) -> VerificationFailed:
    return VerificationFailed(
        found,
        expected="the tables that 'fedphantom release pack' writes",
        remedy="Do not use this folder; ask the signer for another.",
    )
