"""``labels edit``: what is written, what is refused, what is private."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little_brain import HEAD, PARTS, SHAPE, brain_study, healthy_brain, with_tumour
from numpy.typing import NDArray
from typer.testing import CliRunner

from fedphantom.cli import run
from fedphantom.common.edits.inputs import InputFiles, PublicMaps, read_inputs
from fedphantom.common.edits.run import edit_label_maps
from fedphantom.common.errors import ConfigError, DataError, GeometryError, VerificationFailed
from fedphantom.common.labels.chain import LabelChain, PublicSources, label_digest
from fedphantom.common.labels.choice import of_folder, sources_at_hand
from fedphantom.common.labels.commands import labels_app
from fedphantom.common.labels.folder import read_label_folder, write_label_folder
from fedphantom.common.labels.recipe import Recipe, parse_recipe, read_recipe
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.phantom.patients import write_phantom_cohort
from fedphantom.common.study import Study
from fedphantom.common.study_template import to_toml
from fedphantom.common.volumes.grid import Grid
from fedphantom.common.volumes.nifti_writer import write_label_map

RECIPES = sorted((Path(__file__).parent.parent / "docs" / "recipes").glob("*.toml"))
STUDY = brain_study((32, 40, 32), (5.0, 5.0, 5.0))
MOVE = parse_recipe(
    HEAD + '[[edit]]\noperation = "move"\nmm = [-10, 10]\n[[edit]]\noperation = "scale"\nfactor = [0.9, 1.2]\n'
)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("public") / "labels"
    write_label_folder(out, make_label_sampler(STUDY, None), 3, STUDY, seed=1)
    return out


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("patients") / "cohort"
    write_phantom_cohort(out, 2, spacing_mm=5.0, seed=4)
    return out


def edit(source: Path, out: Path, recipe: Recipe = MOVE, study: Study = STUDY, **options: Any) -> Any:
    return edit_label_maps(source, out, recipe, study, **({"variants": 2, "seed": 3} | options))


def chains(folder: Path, study: Study = STUDY) -> list[LabelChain]:
    return [found.chain for found in read_label_folder(folder, study.volume_grid())]


def maps(folder: Path, study: Study = STUDY) -> list[NDArray[np.uint8]]:
    return [found.labels for found in read_label_folder(folder, study.volume_grid())]


def test_every_output_carries_its_recipe_seed_and_source(public: Path, tmp_path: Path) -> None:
    report = edit(public, tmp_path / "out")
    before, after = chains(public), chains(tmp_path / "out")
    assert report.written == len(after) == 6
    for index, chain in enumerate(after):
        assert chain.source == before[index // 2].source
        assert chain.steps[:-1] == before[index // 2].steps
        (step,) = chain.edits()
        assert step.recipe == MOVE
        assert step.seed >= 0
        assert [o["operation"] for o in step.parameters["operations"]] == ["motion"]
        assert step.parameters["beneath"] == "known"
    assert parse_recipe((tmp_path / "out" / "recipe.toml").read_text()) == MOVE
    declared = PublicSources.model_validate_json((tmp_path / "out" / "public-labels.json").read_bytes())
    assert declared.recipes == (MOVE,)
    assert of_folder(STUDY, tmp_path / "out", None).sources == declared


def test_the_same_seed_gives_the_same_bytes_and_variants_do_not_depend_on_each_other(
    public: Path, tmp_path: Path
) -> None:
    edit(public, tmp_path / "a")
    edit(public, tmp_path / "b")
    edit(public, tmp_path / "c", seed=4)
    edit(public, tmp_path / "d", variants=1)
    files = {f.name: f.read_bytes() for f in (tmp_path / "a").iterdir()}
    assert files == {f.name: f.read_bytes() for f in (tmp_path / "b").iterdir()}
    assert not np.array_equal(maps(tmp_path / "a")[0], maps(tmp_path / "c")[0])
    assert [m.tobytes() for m in maps(tmp_path / "d")] == [m.tobytes() for m in maps(tmp_path / "a")[::2]]


def test_an_edited_map_can_be_edited_again(public: Path, tmp_path: Path) -> None:
    edit(public, tmp_path / "once", variants=1)
    grow = parse_recipe(HEAD + '[[edit]]\noperation = "grow"\npart = "oedema"\nmm = 5\n')
    report = edit(tmp_path / "once", tmp_path / "twice", grow, variants=1)
    assert report.private == 0
    assert all(len(chain.edits()) == 2 for chain in chains(tmp_path / "twice"))
    declared = PublicSources.model_validate_json((tmp_path / "twice" / "public-labels.json").read_bytes())
    assert declared.recipes == (MOVE, grow)


def test_a_map_under_a_copied_public_chain_is_not_edited(public: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_label_map(folder / "a.nii.gz", maps(public)[1], STUDY.volume_grid())
    (folder / "a.json").write_bytes((public / "label-00001_dseg.json").read_bytes())
    with pytest.raises(VerificationFailed, match="does not give"):
        edit(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(VerificationFailed, match="does not give"):  # nor painted
        of_folder(STUDY, folder, sources_at_hand(STUDY, None))
    edit(public, tmp_path / "edited")
    for honest in (public, tmp_path / "edited"):
        assert of_folder(STUDY, honest, sources_at_hand(STUDY, None)).warnings == ()


def test_patients_maps_are_private_and_named_by_a_keyed_hash_alone(patients: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    report = edit(patients, tmp_path / "out", secret=secret)
    assert report.private == report.written == 4
    assert "stay inside the site" in report.to_text()
    assert not (tmp_path / "out" / "public-labels.json").exists()
    assert secret.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0
    found = chains(tmp_path / "out")
    assert {chain.source.kind for chain in found} == {"private"}
    assert len({chain.source.name for chain in found}) == 2
    text = "".join(f.read_text() for f in (tmp_path / "out").glob("*.json"))
    assert "phantom0001" not in text
    inputs = list(read_inputs(InputFiles.of(patients, STUDY), STUDY, PublicMaps(STUDY, None), lambda: bytes(32)))
    assert not any(label_digest(given.labels) in text for given in inputs)
    assert {given.chain.source.name for given in inputs}.isdisjoint({chain.source.name for chain in found})
    edit(patients, tmp_path / "again", secret=secret)
    assert chains(tmp_path / "again") == found


def test_an_edit_of_an_edited_private_map_stays_private(patients: Path, tmp_path: Path) -> None:
    edit(patients, tmp_path / "once", variants=1, secret=tmp_path / "secret")
    report = edit(tmp_path / "once", tmp_path / "twice", variants=1)
    assert report.private == report.written
    assert [c.source for c in chains(tmp_path / "twice")] == [c.source for c in chains(tmp_path / "once")]


@pytest.mark.parametrize("named", [None, "necrosis", "oedema"])
def test_a_cohort_whose_values_may_mean_something_else_is_not_edited(
    named: str | None, patients: Path, tmp_path: Path
) -> None:
    """Values without names, one by another name, and the study's own names for them."""
    cohort = tmp_path / "cohort"
    shutil.copytree(patients, cohort)
    table = cohort / "dseg.tsv"
    text = table.read_text()
    assert "4\toedema" in text
    table.write_text(text.replace("4\toedema", f"4\t{named}")) if named else table.unlink()
    if named == "oedema":
        edit(cohort, tmp_path / "out", secret=tmp_path / "secret")
        return
    with pytest.raises(DataError, match="does not name their values" if named is None else "value 4 'necrosis'"):
        edit(cohort, tmp_path / "out", secret=tmp_path / "secret")


def test_private_maps_without_a_secret_are_refused(patients: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without the site's secret"):
        edit(patients, tmp_path / "out")
    (tmp_path / "short").write_text("abc")
    with pytest.raises(ConfigError, match="no site's secret"):
        edit(patients, tmp_path / "out", secret=tmp_path / "short")
    assert not (tmp_path / "out").exists()


TRANSPLANT = parse_recipe(
    HEAD + '[[edit]]\noperation = "remove"\nlesion = "all"\n[[edit]]\noperation = "transplant"\ndepth_mm = [20, 60]\n'
)


def test_a_public_donor_keeps_a_public_map_public(public: Path, tmp_path: Path) -> None:
    report = edit(public, tmp_path / "out", TRANSPLANT, donors=public)
    assert report.private == 0
    donors = [chain.edits()[0].donor for chain in chains(tmp_path / "out")]
    assert {donor.model_dump_json() for donor in donors if donor} <= {c.model_dump_json() for c in chains(public)}


def test_a_private_donor_makes_the_map_private(public: Path, patients: Path, tmp_path: Path) -> None:
    report = edit(public, tmp_path / "out", TRANSPLANT, donors=patients, secret=tmp_path / "secret")
    assert report.private == report.written > 0
    assert not (tmp_path / "out" / "public-labels.json").exists()
    for chain in chains(tmp_path / "out"):
        assert chain.source.kind == "public"
        assert not chain.is_public
    # Nor does another edit make it public again.
    again = edit(tmp_path / "out", tmp_path / "again", variants=1)
    assert again.private == again.written


def test_donors_are_named_exactly_where_a_recipe_transplants(public: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without donors"):
        edit(public, tmp_path / "out", TRANSPLANT)
    with pytest.raises(ConfigError, match="without use"):
        edit(public, tmp_path / "out", donors=public)


def test_a_recipe_that_pushes_every_lesion_outside_is_refused_with_reasons_and_counts(
    public: Path, tmp_path: Path
) -> None:
    away = parse_recipe(HEAD + '[[edit]]\noperation = "move"\nmm = [0, 0, 150]\n')
    with pytest.raises(DataError, match="6 × move: a body pushed outside the brain") as refused:
        edit(public, tmp_path / "out", away)
    assert refused.value.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_folds_every_map_is_refused(public: Path, tmp_path: Path) -> None:
    fold = parse_recipe(HEAD + '[[edit]]\noperation = "deform"\ndisplacement_mm = 20\nsmoothness_mm = 6\n')
    (tmp_path / "in").mkdir()
    for name in ("label-00001_dseg.nii.gz", "label-00001_dseg.json"):
        (tmp_path / "in" / name).write_bytes((public / name).read_bytes())
    with pytest.raises(DataError, match="25 × deform: a warp that folds the map"):
        edit(tmp_path / "in", tmp_path / "out", fold, variants=1)


def test_a_variant_without_a_plausible_draw_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    study = brain_study()
    folder = tmp_path / "in"
    folder.mkdir()
    write_label_map(folder / "a.nii.gz", healthy_brain(), study.volume_grid())
    write_label_map(folder / "b.nii.gz", with_tumour(healthy_brain()), study.volume_grid())
    report = edit(folder, tmp_path / "out", study=study, secret=tmp_path / "secret")
    assert (report.written, report.given_up) == (2, 2)
    assert report.rejected["move and scale", "no lesion"] == 50
    told = "2 of 4 variants given up, because no draw was plausible; most often 50 × move and scale: a label map"
    assert report.warning is not None
    assert report.warning.startswith(told)
    assert replace(report, given_up=0).warning is None
    assert report.to_json()["rejected"][0] == {
        "edit": "move and scale",
        "reason": "no lesion",
        "draws": 50,
        "first": "0 lesions; at least 1",
    }
    assert "or structure to edit (first: 0 lesions; at least 1)" in report.to_text()


def test_the_command_warns_of_variants_that_were_given_up_on_stderr_and_ends_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = brain_study()
    (tmp_path / "in").mkdir()
    write_label_map(tmp_path / "in" / "a.nii.gz", healthy_brain(), study.volume_grid())
    write_label_map(tmp_path / "in" / "b.nii.gz", with_tumour(healthy_brain()), study.volume_grid())
    (tmp_path / "study.toml").write_text(to_toml(study))
    (tmp_path / "recipe.toml").write_text(MOVE.to_toml())
    options = ["--recipe", "recipe.toml", "--study", "study.toml", "--site-secret", "secret"]
    named = [word if word.startswith("--") else str(tmp_path / word) for word in ["in", "out", *options]]
    assert run(["labels", "edit", *named, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("warning: 1 of 2 variants given up")
    assert json.loads(out)["given_up"] == 1


def test_values_that_the_study_does_not_name_are_refused(tmp_path: Path) -> None:
    study = brain_study()
    folder = tmp_path / "in"
    folder.mkdir()
    write_label_map(folder / "a.nii.gz", np.where(healthy_brain() > 0, 9, 0).astype(np.uint8), study.volume_grid())
    with pytest.raises(DataError, match="the values 9"):
        edit(folder, tmp_path / "out", study=study, secret=tmp_path / "secret")


def test_label_maps_on_another_grid_are_resampled_only_when_the_study_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_label_map(folder / "a.nii.gz", with_tumour(healthy_brain()), Grid(SHAPE, (2.0, 2.0, 2.0)))
    for refuse in (
        lambda: of_folder(STUDY, folder, None),
        lambda: edit(folder, tmp_path / "out", secret=tmp_path / "s"),
    ):
        with pytest.raises(GeometryError) as refused:
            refuse()
        assert "56 × 56 × 56 voxels of 2 × 2 × 2 mm" in refused.value.found
        assert "32 × 40 × 32 voxels of 5 × 5 × 5 mm" in refused.value.expected
        assert "resample_labels" in refused.value.remedy
        assert refused.value.exit_code == 3
    willing = STUDY.model_copy(update={"grid": STUDY.grid.model_copy(update={"resample_labels": True})})
    (only,) = of_folder(willing, folder, None).maps
    assert only.labels.shape == STUDY.grid.shape
    assert np.isin(only.labels, PARTS).any()


def test_as_many_voxels_of_another_size_are_another_grid(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    labels = np.ones(STUDY.grid.shape, np.uint8)
    write_label_map(folder / "a.nii.gz", labels, Grid(STUDY.grid.shape, (4.0, 5.0, 5.0)))
    for refuse in (
        lambda: of_folder(STUDY, folder, None),
        lambda: edit(folder, tmp_path / "out", secret=tmp_path / "s"),
    ):
        with pytest.raises(GeometryError, match="32 × 40 × 32 voxels of 4 × 5 × 5 mm"):
            refuse()


def test_turned_axes_are_not_another_grid(tmp_path: Path) -> None:
    import nibabel

    labels = with_tumour(healthy_brain())
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    folder = tmp_path / "in"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(labels[::-1], affine), folder / "a.nii.gz")
    (only,) = of_folder(brain_study(), folder, None).maps
    assert np.array_equal(only.labels, labels)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_documented_recipe_can_be_typed(path: Path, public: Path, tmp_path: Path) -> None:
    study, source = STUDY, public
    if path.stem == "structures":
        study, source = _structures(tmp_path)
    (tmp_path / "study.toml").write_text(to_toml(study))
    arguments = ["edit", str(source), str(tmp_path / "out"), "--recipe", str(path), "--json"]
    arguments += ["--study", str(tmp_path / "study.toml"), "-n", "2"]
    arguments += ["--donors", str(public)] if read_recipe(path).needs_donor else []
    arguments += ["--site-secret", str(tmp_path / "secret")] if path.stem == "structures" else []
    if path.stem == "transplant":  # into healthy brains
        healthy = study.model_copy(
            update={"public_labels": study.public_labels.model_copy(update={"lesion_probability": 0.0})}
        )
        (tmp_path / "study.toml").write_text(to_toml(healthy))
        write_label_folder(tmp_path / "in", make_label_sampler(healthy, None), 2, healthy, seed=2)
        arguments[1] = str(tmp_path / "in")
    result = CliRunner().invoke(labels_app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["written"] >= 0.8 * 2 * report["inputs"]
    assert report["diversity"]["dice"]
    assert len(maps(tmp_path / "out", study)) == report["written"]


def _structures(root: Path) -> tuple[Study, Path]:
    study = Study.model_validate({
        "name": "hippocampus",
        "seed": 1,
        "channels": ["MRI"],
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "grid": {"shape": (32, 48, 32), "spacing_mm": (1.0, 1.0, 1.0)},
        "public_labels": {"source": "folder", "name": "open", "licence": "CC0"},
    })  # fmt: skip
    labels = np.zeros((32, 48, 32), np.uint8)
    labels[11:21, 10:24, 10:22] = 2
    labels[11:21, 24:36, 10:22] = 1
    (root / "in").mkdir()
    write_label_map(root / "in" / "a.nii.gz", labels, study.volume_grid())
    return study, root / "in"


def test_failures_end_in_their_exit_codes(public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.toml").write_text(to_toml(STUDY))
    (tmp_path / "bad.toml").write_text(HEAD + '[[edit]]\noperation = "grow"\npart = "liver"\nmm = 1\n')
    command = ["labels", "edit", str(public), str(tmp_path / "out"), "--study", str(tmp_path / "study.toml")]
    assert run([*command, "--recipe", str(tmp_path / "bad.toml")]) == 3
    assert "'liver'" in capsys.readouterr().err
    assert run([*command, "--recipe", str(tmp_path / "missing.toml")]) == 3
    assert "no file 'missing.toml' at the path given" in capsys.readouterr().err
    (tmp_path / "latin.toml").write_bytes(HEAD.encode() + b"# \xe9\n")
    assert run([*command, "--recipe", str(tmp_path / "latin.toml")]) == 3
    assert "'latin.toml' is not UTF-8 text" in capsys.readouterr().err
    assert run(command) == 2


def test_where_nothing_is_a_folder_of_label_maps_is_expected_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.toml").write_text(to_toml(STUDY))
    (tmp_path / "recipe.toml").write_text(MOVE.to_toml())
    options = ["--study", str(tmp_path / "study.toml"), "--recipe", str(tmp_path / "recipe.toml")]
    assert run(["labels", "edit", str(tmp_path / "nowhere"), str(tmp_path / "out"), *options]) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "a folder with label maps (NIfTI files) directly in it, a cohort's folder, or its table" in said


def test_one_private_map_of_one_pair_is_told_in_the_singular(tmp_path: Path) -> None:
    study = brain_study()
    (tmp_path / "in").mkdir()
    write_label_map(tmp_path / "in" / "a.nii.gz", with_tumour(healthy_brain()), study.volume_grid())
    said = [
        edit(tmp_path / "in", tmp_path / f"out{n}", study=study, secret=tmp_path / "secret", variants=n).to_text()
        for n in (1, 2)
    ]
    assert "1 of them is private: it stays inside the site, and nothing painted from it is released" in said[0]
    assert "2 of them are private: they stay inside the site" in said[1]
    assert "Dice of 1 pair among 2 maps" in said[1]


def test_sampling_says_how_diverse_the_sample_is(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(to_toml(STUDY))
    arguments = ["sample", str(tmp_path / "out"), "-n", "3", "--study", str(tmp_path / "study.toml")]
    result = CliRunner().invoke(labels_app, [*arguments, "--json"])
    facts = json.loads(result.output)
    assert (facts["label_maps"], facts["sources"], facts["diversity"]["pairs"]) == (3, 1, 3)
    assert 0 < facts["diversity"]["dice"]["white"]["median"] < 1
