"""Label maps are what patients are known by and held to, as their channels are: noised steps ask for both."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from ledgered_site import BUDGET, OTHER_RUN, RUN, cost, fit, ledger_in, run_named, scan, steps
from promised import promised_site, request, trainer

from fedphantom.client.site_round import Site
from fedphantom.client.training_people import training_people
from fedphantom.common.errors import BudgetSpent, PolicyRefused
from fedphantom.common.journal import Journal, read_journal
from fedphantom.common.site_folder import SiteFolder, site_material
from fedphantom.privacy.dp.ledger import Ledger
from fedphantom.privacy.dp.persons import Held

GRADIENTS = 'noised = "norms"\ndiscriminator_steps = 2'


def labelled(names: str) -> dict[str, Held]:
    """Each with a channel and a label map that are theirs, whatever they are called."""
    return {f"patient-{name}": Held([scan(name.lower())], [scan(f"labels {name.lower()}")]) for name in names}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return ledger_in(tmp_path)


def test_an_edited_label_map_is_a_cohort_that_changed_since_the_reservation(ledger: Ledger) -> None:
    ledger.reserve(RUN, labelled("abc"), steps(5), BUDGET).commit(5)
    edited = labelled("abc") | {"patient-c": Held([scan("c")], [scan("labels c, edited")])}
    with pytest.raises(PolicyRefused, match="other scans or label maps of theirs"):
        ledger.reserve(RUN, edited, steps(5), BUDGET)
    assert ledger.reserve(RUN, labelled("abc"), steps(5), BUDGET).epsilon == cost(10)


def test_editing_label_maps_gives_nobody_a_new_budget(ledger: Ledger) -> None:
    ledger.reserve(RUN, labelled("abc"), steps(fit(3.0)), BUDGET)
    renamed = {"other": Held([scan("a")], [scan("labels a, edited")])}
    with pytest.raises(BudgetSpent):
        ledger.reserve(OTHER_RUN, renamed, steps(1), BUDGET)


def test_a_renamed_patient_whose_channels_were_edited_is_known_by_an_unchanged_label_map(ledger: Ledger) -> None:
    ledger.reserve(RUN, labelled("abc"), steps(fit(3.0)), BUDGET)
    edited = {"other": Held([scan("a, edited")], [scan("labels a")])}
    with pytest.raises(BudgetSpent):
        ledger.reserve(OTHER_RUN, edited, steps(1), BUDGET)


def test_a_label_map_that_is_anothers_channel_makes_nobody_that_other(ledger: Ledger) -> None:
    ledger.reserve(RUN, {"one": Held([scan("x")])}, steps(fit(3.0)), BUDGET)
    ledger.reserve(OTHER_RUN, {"two": Held([scan("y")], [scan("x")])}, steps(1), BUDGET)


def test_patients_who_share_an_atlas_s_label_map_stay_apart_and_are_held_to_it(ledger: Ledger) -> None:
    def sharing(label_map: str) -> dict[str, Held]:
        return {name: Held([scan(name)], [], [scan(label_map)]) for name in ("one", "two")}

    whole = fit(3.0)
    ledger.reserve(RUN, sharing("atlas"), steps(whole - 1), BUDGET)
    stranger = {"three": Held([scan("three")], [], [scan("atlas")])}
    ledger.reserve(OTHER_RUN, stranger, steps(whole), BUDGET)
    with pytest.raises(PolicyRefused, match="cohort that changed"):
        ledger.reserve(RUN, sharing("another atlas"), steps(1), BUDGET)
    ledger.reserve(RUN, sharing("atlas"), steps(1), BUDGET)


# Ledgers of versions that did not know label maps


@pytest.fixture
def older(tmp_path: Path) -> Ledger:
    """As such a version wrote it: the same run, patients and channels, five steps."""
    now = ledger_in(tmp_path / "now")
    channels_alone = {name: replace(held, label_maps=()) for name, held in labelled("abc").items()}
    now.reserve(RUN, channels_alone, steps(5), BUDGET)
    then = ledger_in(tmp_path / "then")
    then.path.parent.mkdir()
    shutil.copy(now.path.parent / "ledger.secret", then.path.parent)
    for line in read_journal(now.path):
        facts = {name: fact for name, fact in line.facts.items() if name != "label_maps"}
        Journal(then.path).append(line.event, **facts)
    return then


def test_a_run_that_an_older_ledger_knows_goes_on_and_is_held_to_label_maps_from_then_on(older: Ledger) -> None:
    assert older.reserve(RUN, labelled("abc"), steps(5), BUDGET).epsilon == cost(10)
    edited = labelled("abc") | {"patient-c": Held([scan("c")], [scan("labels c, edited")])}
    with pytest.raises(PolicyRefused, match="cohort that changed"):
        older.reserve(RUN, edited, steps(5), BUDGET)


def test_channels_that_changed_since_an_older_ledger_s_reservation_are_refused_as_before(older: Ledger) -> None:
    edited = labelled("abc") | {"patient-c": Held([scan("c, edited")], [scan("labels c")])}
    with pytest.raises(PolicyRefused, match="cohort that changed"):
        older.reserve(RUN, edited, steps(5), BUDGET)


def test_patients_of_an_older_ledger_have_spent_what_it_says(older: Ledger) -> None:
    with pytest.raises(BudgetSpent):
        older.reserve(OTHER_RUN, labelled("C"), steps(fit(3.0) - 4), BUDGET)
    older.reserve(run_named("c" * 64), labelled("C"), steps(fit(3.0) - 5), BUDGET)


# What a site reads of its files


def label_map(folder: SiteFolder) -> Path:
    """Of one training patient."""
    material = site_material(folder, folder.study())
    patient = material.cohort.only(material.coins.training_patients()[:1]).patients[0]
    found = patient.scans[0].label
    assert found is not None
    return found


def rewrite(file: Path, edit: bool, kind: type = np.uint8) -> None:
    image = nibabel.load(file)  # type: ignore[attr-defined]
    labels = np.asarray(image.dataobj).astype(kind)
    if edit:
        labels[tuple(np.argwhere(labels == 1)[0])] = 0
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), file)  # type: ignore[attr-defined, no-untyped-call]


def test_a_site_notices_a_label_map_that_was_edited_between_two_rounds(tmp_path: Path) -> None:
    folder = promised_site(tmp_path, promise=GRADIENTS)
    site = Site(folder, lambda root: trainer(SiteFolder.open(root)))

    site.train_round(request(folder, 1))
    rewrite(label_map(folder), edit=True)
    with pytest.raises(PolicyRefused, match="a cohort that changed since the run's earlier reservation"):
        site.train_round(request(folder, 2))


def test_a_label_map_stored_in_other_numbers_is_the_same(tmp_path: Path) -> None:
    folder = promised_site(tmp_path)
    material = site_material(folder, folder.study())
    before, file = training_people(material.cohort, material.coins), label_map(folder)
    rewrite(file, edit=False, kind=np.int16)
    assert training_people(material.cohort, material.coins) == before
    rewrite(file, edit=True)
    assert training_people(material.cohort, material.coins) != before


def test_a_label_map_that_any_two_of_the_site_s_patients_have_is_a_shared_one(tmp_path: Path) -> None:
    folder = promised_site(tmp_path)
    material = site_material(folder, folder.study())
    training = material.coins.training_patients()
    other = next(one for one in material.cohort.patients if one.patient_id not in training).scans[0].label
    assert other is not None
    assert not any(held.shared_label_maps for held in training_people(material.cohort, material.coins).values())
    shutil.copy(label_map(folder), other)
    people = training_people(material.cohort, material.coins)
    assert [len(people[name].shared_label_maps) for name in training] == [1] + [0] * (len(training) - 1)
    assert [len(people[name].label_maps) for name in training] == [0] + [1] * (len(training) - 1)
