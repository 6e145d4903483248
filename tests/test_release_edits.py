"""Edited label maps are released only where their recipes are declared and make them again; private ones never."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_release import (
    Releasable,
    assert_refused,
    edit_json,
    in_predicate,
    release_study,
    sign_again,
    statement_of,
)

from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.device import choose_device
from fedphantom.common.edits.run import edit_label_maps
from fedphantom.common.errors import PolicyRefused
from fedphantom.common.gan.generation import generate_cohort, load_generator
from fedphantom.common.labels.chain import PublicSources
from fedphantom.common.labels.choice import declare_sources, of_folder
from fedphantom.common.labels.folder import write_label_folder
from fedphantom.common.labels.recipe import Recipe, parse_recipe
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.volumes.nifti import read_label_map
from fedphantom.common.volumes.nifti_writer import write_label_map
from fedphantom.privacy.label_making import LabelMaking, SampledMaps
from fedphantom.privacy.release.datasheet import render_datasheet
from fedphantom.privacy.release.origin import check_origin
from fedphantom.privacy.release.readme import render_readme
from fedphantom.privacy.statement import ReleasePredicate

HEAD = 'name = "tissue"\ncitation = "chosen by hand"\n'
SCALE = parse_recipe(HEAD + '[[edit]]\noperation = "scale"\nstructure = ["tissue"]\nfactor = [0.8, 1.1]\n')
TRANSPLANT = parse_recipe(
    HEAD
    + '[labels]\nlesion = ["tissue"]\nhost = ["background"]\nhemispheres = false\n'
    + '[[edit]]\noperation = "remove"\nlesion = "all"\n[[edit]]\noperation = "transplant"\n'
)


def paint(made: Releasable, labels: Path) -> None:
    """The synthetic cohort anew, from a folder of label maps, as ``generate --labels`` does."""
    chosen = of_folder(release_study(), labels, None)
    shutil.rmtree(made.synthetic, ignore_errors=True)
    generate_cohort(load_generator(made.generator, choose_device("cpu")), chosen.maps, made.synthetic, seed=0)
    if chosen.sources:
        declare_sources(made.run, chosen.sources)
    made.write_audit()


def edit(made: Releasable, source: Path, out: Path, recipe: Recipe = SCALE, **options: Any) -> Path:
    edit_label_maps(source, out, recipe, release_study(), variants=1, seed=2, public=made.public, **options)
    return out


@pytest.fixture(scope="module")
def template(release_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose synthetic scans were painted from edited public label maps."""
    root = tmp_path_factory.mktemp("edits") / "made"
    shutil.copytree(release_template, root, ignore=shutil.ignore_patterns("release", "weights"))
    made, study = Releasable(root), release_study()
    sampler = make_label_sampler(study, read_cohort(made.public))
    write_label_folder(root / "sampled", sampler, 2, study, seed=0)
    paint(made, edit(made, root / "sampled", root / "edited"))
    return root


@pytest.fixture
def made(template: Path, tmp_path: Path) -> Releasable:
    return Releasable(Path(shutil.copytree(template, tmp_path / "made")))


def origin(made: Releasable) -> int:
    return check_origin(made.run, made.synthetic, read_cohort(made.public), device="cpu")


def in_every_sidecar(made: Releasable, change: Callable[[dict[str, Any]], None]) -> None:
    for path in made.synthetic.rglob("sub-*.json"):
        edit_json(path, change)


def in_edit(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda sidecar: change(sidecar["LabelChain"]["steps"][-1])


def test_edited_public_label_maps_are_made_again_and_packed(made: Releasable) -> None:
    assert origin(made) == 2
    report = made.pack()
    assert report.volumes == 6
    declared = PublicSources.model_validate_json((made.release / "public-labels.json").read_bytes())
    assert declared.recipes == (SCALE,)
    assert report.recipes == ("tissue",)
    text = (made.release / "README.md").read_text()
    assert "How the label maps of the 2 scans were made" in text
    assert "- 2 scans: edited by the recipe `tissue` (chosen by hand)" in text
    assert "not edited" not in text
    sidecar = json.loads(next(made.release.rglob("*_dseg.json")).read_text())
    assert Recipe.model_validate(sidecar["LabelChain"]["steps"][-1]["recipe"]) == SCALE


def test_edited_scans_beside_sampled_ones_are_counted_apart_from_their_chains(made: Releasable) -> None:
    study = release_study()
    sampled = of_folder(study, made.root / "sampled", None)
    edited = of_folder(study, made.root / "edited", None)
    shutil.rmtree(made.synthetic)
    generator = load_generator(made.generator, choose_device("cpu"))
    generate_cohort(generator, [*list(sampled.maps)[:1], *edited.maps], made.synthetic, seed=0)
    made.write_audit()
    made.pack()
    text = (made.release / "README.md").read_text()
    assert "- 1 scan: sampled from open balls, not edited\n- 2 scans: edited by the recipe `tissue`" in text
    # A signer whose README and statement agree still cannot say otherwise than the chains do.
    changed = LabelMaking(scans=3, sampled=(SampledMaps(source="open balls", scans=3),))
    predicate = ReleasePredicate.model_validate_json(json.dumps(statement_of(made.release)["predicate"]))
    otherwise = predicate.model_copy(update={"label_making": changed})
    (made.release / "README.md").write_text(render_readme(otherwise))
    (made.release / "cohort" / "README.md").write_text(render_datasheet(otherwise))
    sign_again(made.release, in_predicate(label_making=changed.model_dump(mode="json")))
    assert_refused(made.release, "made otherwise than the signed statement says")


def test_the_edit_did_change_the_label_maps(made: Releasable) -> None:
    # A guard of the fixture: otherwise the tests below would pass with unedited maps too.
    study = release_study()
    before = [found.labels for found in of_folder(study, made.root / "sampled", None).maps]
    after = [found.labels for found in of_folder(study, made.root / "edited", None).maps]
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


TAMPERED: dict[str, Callable[[dict[str, Any]], None]] = {
    "another range": lambda step: step["recipe"]["edit"][0].update(factor=[0.8, 1.2]),
    "a fixed number for a range": lambda step: step["recipe"]["edit"][0].update(factor=[0.95, 0.95]),
    "an edit more": lambda step: step["recipe"]["edit"].append(
        {"operation": "grow", "part": "tissue", "voxels": [1.0, 1.0]}
    ),
    "another seed": lambda step: step.update(seed=step["seed"] + 1),
    "another factor drawn": lambda step: step["parameters"]["operations"][0].update(factor=0.9),
    "no operation": lambda step: step["parameters"].update(operations=[]),
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_tampered_recipe_is_caught_even_where_it_is_declared(
    made: Releasable, change: Callable[[dict[str, Any]], None]
) -> None:
    in_every_sidecar(made, in_edit(change))
    recipe = json.loads(next(made.synthetic.rglob("*_dseg.json")).read_text())["LabelChain"]["steps"][-1]["recipe"]
    declare_sources(made.run, PublicSources(sources=(), recipes=(Recipe.model_validate(recipe),)))
    with pytest.raises(PolicyRefused) as refused:
        origin(made)
    assert refused.value.exit_code == 4


def test_a_recipe_that_is_not_declared_is_refused(made: Releasable) -> None:
    edit_json(made.declared, lambda content: content.update(recipes=[]))
    for refuse in (lambda: origin(made), made.pack):
        with pytest.raises(PolicyRefused, match="recipe that the run does not declare"):
            refuse()


def test_a_map_that_its_recipe_does_not_give_is_refused(made: Releasable) -> None:
    path = next(made.synthetic.rglob("*_dseg.nii.gz"))
    labels = read_label_map(path)[0].astype(np.uint8)
    write_label_map(path, np.roll(labels, 1, axis=2), release_study().volume_grid())
    with pytest.raises(PolicyRefused, match="do not give"):
        origin(made)


def test_an_edit_before_the_sampler_or_without_it_is_refused(made: Releasable) -> None:
    in_every_sidecar(made, lambda s: s["LabelChain"].update(steps=s["LabelChain"]["steps"][::-1]))
    with pytest.raises(PolicyRefused, match="not those of the public sampler"):
        origin(made)
    in_every_sidecar(made, lambda s: s["LabelChain"].update(steps=s["LabelChain"]["steps"][:1]))
    with pytest.raises(PolicyRefused, match="not those of the public sampler"):
        origin(made)


def test_a_recipe_changed_in_a_signed_release_is_noticed(made: Releasable) -> None:
    made.pack()
    edit_json(
        next(made.release.rglob("*_dseg.json")), in_edit(lambda step: step["recipe"].update(citation="JANE DOE 1970"))
    )
    sign_again(made.release)
    assert_refused(made.release)


def test_text_among_an_edits_parameters_is_refused(made: Releasable) -> None:
    in_every_sidecar(made, in_edit(lambda step: step["parameters"].update(note="JANE DOE 1970")))
    with pytest.raises(Exception, match="hold text"):
        made.pack()


def test_maps_with_a_public_donor_are_packed_and_name_it(made: Releasable) -> None:
    source = made.root / "sampled"
    paint(made, edit(made, source, made.root / "donated", TRANSPLANT, donors=source))
    assert origin(made) == 2
    made.pack()
    sidecar = json.loads(next(made.release.rglob("*_dseg.json")).read_text())
    assert sidecar["LabelChain"]["steps"][-1]["donor"]["source"]["kind"] == "public"


def test_a_donor_other_than_recorded_is_refused(made: Releasable) -> None:
    source = made.root / "sampled"
    paint(made, edit(made, source, made.root / "donated", TRANSPLANT, donors=source))

    def other(step: dict[str, Any]) -> None:
        step["donor"]["steps"][0]["seed"] += 1

    in_every_sidecar(made, in_edit(other))
    with pytest.raises(PolicyRefused, match="not those of the public sampler"):
        origin(made)


def test_maps_edited_from_patients_are_never_packed(made: Releasable, tmp_path: Path) -> None:
    """The public cohort stands in for a hospital's: a cohort's maps have no public chain."""
    paint(made, edit(made, made.public, made.root / "private", secret=tmp_path / "secret"))
    for refuse in (lambda: origin(made), made.pack):
        with pytest.raises(PolicyRefused, match="private label map") as refused:
            refuse()
        assert refused.value.exit_code == 4
    assert not made.release.exists()


def test_maps_with_a_private_donor_are_never_packed(made: Releasable, tmp_path: Path) -> None:
    edited = edit(
        made, made.root / "sampled", made.root / "donated", TRANSPLANT, donors=made.public, secret=tmp_path / "secret"
    )
    paint(made, edited)
    declare_sources(made.run, PublicSources(sources=(), recipes=(TRANSPLANT,)))
    for refuse in (lambda: origin(made), made.pack):
        with pytest.raises(PolicyRefused, match="private label map") as refused:
            refuse()
        assert refused.value.exit_code == 4
