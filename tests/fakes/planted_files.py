"""What a synthetic cohort can hold beside what its generator painted, put there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_release import sign_again, statement_of

from fedphantom.common.cohorts.bids_writer import special_channels
from fedphantom.privacy.release.datasheet import render_datasheet
from fedphantom.privacy.release.readme import render_readme
from fedphantom.privacy.release.tables import encode_bids_ignore, encode_description, encode_json
from fedphantom.privacy.statement import parse_statement
from fedphantom.privacy.synthetic_digest import synthetic_digest

Plant = Callable[[Path], None]


def _image(cohort: Path) -> Path:
    return next(path for path in sorted(cohort.rglob("*_T1w.nii.gz")) if "gadolinium" not in path.name)


def _beside(image: Path, name: str) -> None:
    """A patient's scan would lie there just so: a clean volume with a copied sidecar."""
    for ending in (".nii.gz", ".json"):
        there = image.with_name(image.name.removesuffix(".nii.gz") + ending)
        shutil.copy(there, image.with_name(image.name.replace("T1w.nii.gz", name) + ending))


def another_channel(cohort: Path) -> None:
    for path in sorted(cohort.rglob("*_T1w.nii.gz")):
        if "gadolinium" not in path.name:
            _beside(path, "PDw")


def a_second_run(cohort: Path) -> None:
    for path in sorted(cohort.rglob("*_T1w.nii.gz")):
        if "gadolinium" not in path.name:
            _beside(path, "run-2_T1w")


def a_second_label_map(cohort: Path) -> None:
    label = next(iter(sorted(cohort.rglob("*_dseg.nii.gz"))))
    shutil.copy(label, label.with_name(label.name.replace("_dseg", "_desc-own_dseg")))


def a_note(cohort: Path) -> None:
    (cohort / "patients.json").write_text("{}")


def a_note_beside_a_scan(cohort: Path) -> None:
    (_image(cohort).parent / "notes.tsv").write_text("name\n")


def a_hidden_file(cohort: Path) -> None:
    (cohort / ".hidden.nii.gz").write_bytes(_image(cohort).read_bytes())


def derivatives(cohort: Path) -> None:
    (cohort / "derivatives").mkdir()


def a_session(cohort: Path) -> None:
    anat = _image(cohort).parent
    shutil.copytree(anat, anat.parent / "ses-2" / "anat")


def a_link(cohort: Path) -> None:
    image = _image(cohort)
    image.rename(cohort.parent / "elsewhere.nii.gz")
    image.symlink_to(cohort.parent / "elsewhere.nii.gz")


def an_unpacked_volume(cohort: Path) -> None:
    image = _image(cohort)
    image.with_name(image.name.removesuffix(".gz")).write_bytes(b"")


def a_missing_channel(cohort: Path) -> None:
    _image(cohort).unlink()


def a_column_about_patients(cohort: Path) -> None:
    table = cohort / "participants.tsv"
    table.write_text(table.read_text().replace("\tsite", "\tsite\tage").replace("\tn/a", "\tn/a\t71"))


def a_participant_without_a_scan(cohort: Path) -> None:
    with (cohort / "participants.tsv").open("a") as table:
        table.write("sub-DoeJane\tn/a\n")


def a_channel_under_anothers_name(cohort: Path) -> None:
    file = cohort / "dataset_description.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"Channels": {"T1w": "T1c"}}))


def a_word_more_in_the_description(cohort: Path) -> None:
    file = cohort / "dataset_description.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"Authors": ["Doe"]}))


def another_table_of_labels(cohort: Path) -> None:
    with (cohort / "dseg.tsv").open("a") as table:
        table.write("9\tdoe\n")


PLANTED: dict[str, tuple[Plant, str]] = {
    plant.__name__.replace("_", " "): (plant, words)
    for plant, words in (
        (another_channel, "none of the study's channels"),
        (a_second_run, "none of the study's channels"),
        (a_second_label_map, "none of the study's channels"),
        (a_note, "no part of it"),
        (a_note_beside_a_scan, "none of the study's channels"),
        (a_hidden_file, "no part of it"),
        (derivatives, "no part of it"),
        (a_session, "no part of it"),
        (a_link, "a link"),
        (an_unpacked_volume, "none of the study's channels"),
        (a_missing_channel, "without one of the study's channels"),
        (a_column_about_patients, "table of participants"),
        (a_participant_without_a_scan, "table of participants"),
        (a_channel_under_anothers_name, "names other channels"),
        (a_word_more_in_the_description, "says more"),
        (another_table_of_labels, "table of labels"),
    )
}

UNREAD = (another_channel, a_second_run, a_note, a_channel_under_anothers_name)
"""One of each sort: volumes, a file of another kind, a table that names channels otherwise."""


def signed_as_if_it_belonged(release: Path, audited: tuple[str, ...] = ()) -> None:
    """What a holder of the packer's key could do: let the statement name whatever channels lie there.

    Args:
        release: With what was put into its cohort.
        audited: Channels that its audit is to claim it read; none leaves the audit as it is.
    """
    cohort = release / "cohort"
    keys = {path.name.split("_", 1)[1].removesuffix(".nii.gz") for path in cohort.rglob("*.nii.gz")} - {"dseg"}
    sidecars = [json.loads(path.read_text()) for path in cohort.glob("sub-*/anat/*.json")]
    facts = {"channels": sorted(keys), "skull_stripped": sum(bool(one.get("SkullStripped")) for one in sidecars)}

    def change(statement: dict[str, Any]) -> None:
        statement["predicate"]["cohort"].update(facts)

    if audited:
        claims = {"channels": audited, "synthetic_sha256": synthetic_digest(cohort)}
        (release / "audit.json").write_bytes(encode_json(json.loads((release / "audit.json").read_bytes()) | claims))
        (cohort / "dataset_description.json").write_bytes(encode_description(special_channels(audited)))
    statement = statement_of(release)
    change(statement)
    predicate = parse_statement(json.dumps(statement).encode()).predicate
    (release / "README.md").write_text(render_readme(predicate))
    (cohort / "README.md").write_text(render_datasheet(predicate))
    if ignored := encode_bids_ignore(tuple(sorted(keys))):
        (cohort / ".bidsignore").write_bytes(ignored)
    sign_again(release, change)
