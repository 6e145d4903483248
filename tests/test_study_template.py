"""A study derived from a cohort, and a study written as TOML that reads back the same."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_cohorts import CHANNELS, SHAPE, tiny_study, tiny_text, write_tiny_cohort

from fedphantom.common.cohort import Cohort
from fedphantom.common.cohorts.bids_writer import BidsWriter
from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.errors import ConfigError, DataError
from fedphantom.common.study import (
    FederationTable,
    GridTable,
    LesionTable,
    NetworkTable,
    PatchTable,
    PublicLabelsTable,
    RolesTable,
    Study,
    TrainingTable,
    parse_study,
)
from fedphantom.common.study_template import study_for, to_toml
from fedphantom.common.toml_text import parse_toml, toml_text
from fedphantom.common.volumes.grid import Grid

ATLAS = PublicLabelsTable(source="atlas")
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=12)
AXES = st.integers(16, 300)
MM = st.floats(0.05, 49.0)


def rates(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


@st.composite
def studies(draw: st.DrawFn) -> Study:
    names = draw(st.lists(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9 _-]{0,31}\Z"), min_size=1, max_size=4, unique=True))
    names = [name for name in names if name not in ("background", "whole")] or ["tumour"]
    values = draw(st.lists(st.integers(1, 255), min_size=len(names), max_size=len(names), unique=True))
    return Study(
        name=draw(st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,62}\Z")),
        seed=draw(st.integers(0, 2**63 - 1)),
        channels=tuple(
            draw(st.lists(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z"), min_size=1, max_size=4, unique=True))
        ),
        labels={"background": 0} | dict(zip(names, values, strict=True)),
        regions=draw(st.sampled_from([{}, {"whole": tuple(values)}, {'the "whole"\n': tuple(values[:1])}])),
        grid=GridTable(shape=draw(st.tuples(AXES, AXES, AXES)), spacing_mm=draw(st.tuples(MM, MM, MM))),
        public_labels=PublicLabelsTable(
            source=draw(st.sampled_from(["atlas", "folder"])),
            name=draw(WORDS),
            licence=draw(WORDS),
            citation=draw(WORDS),
            rotation_deg=draw(rates(0, 45)),
            displacement_mm=draw(rates(0, 20)),
            lesion_probability=draw(rates(0, 1)),
            lesion=LesionTable(radius_mm=(draw(rates(1, 9)), draw(rates(10, 99)))),
        ),
        network=NetworkTable(preset=draw(st.sampled_from(["tiny", "small", "base"]))),
        training=TrainingTable(
            rounds=draw(st.integers(1, 10**6)),
            generator_lr=draw(rates(1e-300, 1e300)),
            patch=draw(st.sampled_from([None, PatchTable(shape=(16, 16, 16), foreground=0.25)])),
        ),
        federation=FederationTable(deadline_s=draw(rates(1e-9, 2e6)), ema_decay=draw(rates(0, 0.999))),
        roles=RolesTable(test=draw(rates(0, 0.2)), audit=draw(rates(0, 0.4))),
    )


@settings(max_examples=60, deadline=None)
@given(study=studies())
def test_any_study_written_as_toml_reads_back_the_same(study: Study) -> None:
    again = parse_study(to_toml(study))
    assert again == study
    assert again.digest() == study.digest()


@pytest.mark.parametrize(
    ("patch", "key"),
    [
        ("{ shape = [8, 16, 16] }", "training.patch"),
        ("{ shape = [16, 16] }", "training.patch.shape"),
        ("{ shape = [16, 16, 24] }", "larger than grid.shape"),
        ("{ shape = [16, 16, 16], foreground = 1.5 }", "training.patch.foreground"),
        ("{ foreground = 0.5 }", "training.patch.shape"),
    ],
)
def test_a_patch_that_no_network_or_grid_takes_is_refused_by_name(patch: str, key: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(key)):
        parse_study(tiny_text().replace("[training]", f"[training]\npatch = {patch}"))


def test_a_study_without_patches_is_the_study_it_was_before_there_were_any() -> None:
    assert "patch" not in tiny_study().model_dump(mode="json")["training"]


@pytest.mark.parametrize(
    "text", ['a "quoted" word', "back\\slash", "tab\tline\nend", "\u0000\u007f", "\U000e0001", "ß漢"]
)
def test_awkward_text_survives_the_way_through_toml(text: str) -> None:
    assert parse_toml(toml_text({text: {"name": text}})) == {text: {"name": text}}


@pytest.mark.parametrize("key", ["name", "licence", "citation"])
@pytest.mark.parametrize("sign", ["\\u202e", "\\u009b31m", "\\n"])
def test_what_a_study_says_of_its_label_maps_stays_one_line_that_is_read_as_it_is_seen(key: str, sign: str) -> None:
    for written, refused in (("CC0", False), (f"CC0 {sign}", True)):
        said = {"name": "balls", "licence": "CC0", "citation": ""} | {key: written}
        lines = "".join(f'{name} = "{text}"\n' for name, text in said.items())
        text = re.sub(r"(?<=\[public_labels\]\n)[^[]*", lambda _, ls=lines: f'source = "folder"\n{ls}', tiny_text())
        with pytest.raises(ConfigError, match="a character that nobody sees") if refused else nullcontext():
            parse_study(text)


def test_a_study_takes_channels_labels_and_grid_from_the_cohort(tmp_path: Path) -> None:
    cohort = read_cohort(write_tiny_cohort(tmp_path / "cohort", 3))
    study = study_for(cohort, name="derived", seed=3, public_labels=ATLAS)
    assert (study.name, study.seed, study.public_labels) == ("derived", 3, ATLAS)
    assert set(study.channels) == set(CHANNELS)
    assert study.labels == {"background": 0, "brain": 1, "tumour": 4}
    assert study.regions == {"whole": (1, 4)}
    assert (study.grid.shape, study.grid.spacing_mm) == (SHAPE, (4.0, 4.0, 4.0))
    assert check_cohort(cohort, study).ok
    assert parse_study(to_toml(study)) == study


def cohort_of(root: Path, shapes: list[tuple[int, int, int]], values: tuple[int, ...] = (1,)) -> Cohort:
    """One patient a shape, at spacing 2 x 3 x 4 mm, every value somewhere in every label map."""
    patients = []
    for number, shape in enumerate(shapes):
        names = {"background": 0} | {f"v{value}": value for value in values}
        with BidsWriter(root / str(number), Grid(shape, (2.0, 3.0, 4.0)), ["T1"], names, "shapes", False) as writer:
            labels = np.zeros(shape, np.uint8)
            labels.reshape(-1)[: len(values)] = values
            writer.add(f"p{number}", np.ones((1, *shape), np.float32), labels, {})
        patients += read_cohort(root / str(number)).patients
    return replace(read_cohort(root / "0"), patients=tuple(patients))


def test_the_grid_is_the_median_scan_cut_to_multiples_of_eight(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, [(20, 30, 47), (35, 33, 48), (90, 39, 90)])
    grid = study_for(cohort, name="x", seed=0, public_labels=ATLAS).grid
    assert grid.shape == (32, 32, 48)
    assert grid.spacing_mm == (2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("shape", "patch"), [((128, 128, 128), None), ((128, 136, 128), (64, 64, 64)), ((480, 480, 16), (64, 64, 16))]
)
def test_scans_too_large_to_train_on_whole_are_trained_on_by_patches(
    tmp_path: Path, shape: tuple[int, int, int], patch: tuple[int, int, int] | None
) -> None:
    training = study_for(cohort_of(tmp_path, [shape]), name="x", seed=0, public_labels=ATLAS).training
    assert (training.patch and training.patch.shape) == patch


def test_a_small_scan_still_gets_a_grid_that_the_networks_can_halve(tmp_path: Path) -> None:
    assert study_for(cohort_of(tmp_path, [(9, 10, 11)]), name="x", seed=0, public_labels=ATLAS).grid.shape == (16,) * 3


def with_channel(cohort: Cohort, name: str) -> Cohort:
    """The cohort with every scan's first channel under this name."""
    patients = [
        replace(p, scans=tuple(replace(s, channels={name: next(iter(s.channels.values()))}) for s in p.scans))
        for p in cohort.patients
    ]
    return replace(cohort, patients=tuple(patients), channels=(name,))


NAMES: dict[str, tuple[dict[int, str], dict[str, int]]] = {
    "none": ({}, {"label-1": 1, "label-2": 2}),
    "two that become the same": ({1: "a/b", 2: "a?b"}, {"a-b": 1, "label-2": 2}),
    "background in front": ({1: "background", 2: "core"}, {"label-1": 1, "core": 2}),
    "an unfit beginning": ({1: "(core)", 2: " rim"}, {"core-": 1, "rim": 2}),
    "another's number": ({1: "label-2", 2: "rim"}, {"label-1": 1, "rim": 2}),
    "the composite region's": ({1: "whole", 2: "core"}, {"whole": 1, "core": 2}),
    "far too long": ({1: "x" * 80, 2: "y"}, {"x" * 32: 1, "y": 2}),
}


@pytest.mark.parametrize(("names", "labels"), NAMES.values(), ids=NAMES.keys())
def test_every_label_value_gets_a_name_of_its_own(
    names: dict[int, str], labels: dict[str, int], tmp_path: Path
) -> None:
    cohort = replace(cohort_of(tmp_path, [(16, 16, 16)], values=(1, 2)), label_names=names)
    study = study_for(cohort, name="x", seed=0, public_labels=ATLAS)
    assert study.labels == {"background": 0} | labels
    assert study.regions == ({} if "whole" in labels else {"whole": (1, 2)})


def test_a_label_that_the_cohort_declares_but_no_patient_shows_is_kept(tmp_path: Path) -> None:
    cohort = replace(cohort_of(tmp_path, [(16, 16, 16)]), label_names={0: "background", 1: "brain", 3: "necrosis"})
    study = study_for(cohort, name="x", seed=0, public_labels=ATLAS)
    assert study.labels == {"background": 0, "brain": 1, "necrosis": 3}
    assert study.regions == {"whole": (1, 3)}


def test_a_cohort_without_structure_or_with_unusable_names_is_refused(tmp_path: Path) -> None:
    empty = cohort_of(tmp_path / "empty", [(16, 16, 16)], values=(0,))
    with pytest.raises(DataError, match="without any structure"):
        study_for(empty, name="x", seed=0, public_labels=ATLAS)
    with pytest.raises(DataError, match="without a labelled scan"):
        study_for(replace(empty, patients=()), name="x", seed=0, public_labels=ATLAS)
    fine = cohort_of(tmp_path / "fine", [(16, 16, 16)])
    with pytest.raises(DataError, match="'channels'"):
        study_for(with_channel(fine, "T1 (pre)"), name="x", seed=0, public_labels=ATLAS)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[training]\nlocal_step = 5\n", "study key 'training.local_step' is unknown"),
        ("[training]\nrounds = -3\n", "study key 'training.rounds' is -3; expected a number above 0"),
        ('[training]\nrounds = "two"\n', "is 'two'"),
    ],
)
def test_a_wrong_study_is_told_by_key_and_value(line: str, told: str) -> None:
    text = 'name = "x"\nseed = 1\nchannels = ["T1"]\nlabels = { background = 0, tissue = 1 }\n'
    text += '[grid]\nshape = [16, 16, 16]\nspacing_mm = [1.0, 1.0, 1.0]\n[public_labels]\nsource = "atlas"\n'
    with pytest.raises(ConfigError, match=re.escape(told)):
        parse_study(text + line)
