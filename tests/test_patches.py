"""Patches: where they lie, how often they show which label, and that a training on them resumes to the same bits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_cohorts import SHAPE, tiny_scans, tiny_study

from fedphantom.common.device import choose_device
from fedphantom.common.gan.generation import numpy_parameters
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.gan.patches import Box, draw_box
from fedphantom.common.gan.training import COLLAPSE_WINDOW, draw_batch, places_of_step, train
from fedphantom.common.gan.training_state import load_state, new_state, save_state
from fedphantom.common.study import PatchTable, Study

CPU = choose_device("cpu")
SCANS = tiny_scans(3)


def patch(shape: tuple[int, int, int], foreground: float) -> PatchTable:
    return PatchTable.model_construct(shape=shape, foreground=foreground)  # smaller than a study may have them


def study_with(shape: tuple[int, int, int], foreground: float = 0.67) -> Study:
    study = tiny_study()
    training = study.training.model_copy(update={"patch": patch(shape, foreground)})
    return study.model_copy(update={"training": training})


def size_of(box: Box) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in box)


AXIS = st.integers(1, 12)


@given(st.data(), st.tuples(AXIS, AXIS, AXIS), st.floats(0, 1), st.integers(0, 2**32))
def test_every_patch_lies_within_its_scan(
    data: st.DataObject, shape: tuple[int, int, int], foreground: float, seed: int
) -> None:
    size = data.draw(st.tuples(*(st.integers(1, n) for n in shape)))
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, shape, dtype=np.uint8)
    box = draw_box(classes, patch(size, foreground), 3, random)
    assert size_of(box) == size
    assert all(part.start >= 0 and part.stop <= n for part, n in zip(box, shape, strict=True))


def scan_with_a_rare_label() -> NDArray[np.uint8]:
    """Half of it air, half of it label 1, a single voxel of label 2, none of label 3."""
    classes = np.zeros((24, 24, 24), np.uint8)
    classes[12:] = 1
    classes[17, 5, 20] = 2
    return classes


def test_a_centred_patch_has_its_label_in_the_middle_and_every_label_is_as_likely() -> None:
    classes = scan_with_a_rare_label()
    random = np.random.default_rng(0)
    boxes = [draw_box(classes, patch((6, 6, 6), 1.0), 4, random) for _ in range(600)]
    rare = [box for box in boxes if (classes[box] == 2).any()]
    assert 250 < len(rare) < 360
    centred = [box for box in rare if box == (slice(14, 20), slice(2, 8), slice(17, 23))]
    assert len(centred) > 240
    # Every patch shows a label; one whose centre lies at the scan's edge is moved no further than to the edge.
    assert all((classes[box] > 0).any() for box in boxes)


def test_patches_that_are_not_centred_lie_anywhere_alike() -> None:
    classes, random = scan_with_a_rare_label(), np.random.default_rng(0)
    boxes = [draw_box(classes, patch((23, 24, 22), 0.0), 4, random) for _ in range(600)]
    starts = Counter(tuple(part.start for part in box) for box in boxes)
    assert starts.keys() == {(x, 0, z) for x in range(2) for z in range(3)}
    assert min(starts.values()) > 60


def test_the_share_of_centred_patches_is_that_of_the_study() -> None:
    classes, random = np.zeros((40, 8, 8), np.uint8), np.random.default_rng(0)
    classes[35, 4, 4] = 1
    boxes = [draw_box(classes, patch((2, 8, 8), 0.67), 2, random) for _ in range(1000)]
    shows = np.mean([(classes[box] > 0).any() for box in boxes])
    assert shows == pytest.approx(0.67 + 0.33 * 2 / 39, abs=0.04)


def test_a_scan_without_any_label_still_gives_a_patch() -> None:
    box = draw_box(np.zeros((9, 9, 9), np.uint8), patch((4, 4, 4), 1.0), 5, np.random.default_rng(0))
    assert size_of(box) == (4, 4, 4)


def test_without_patches_a_step_sees_whole_scans() -> None:
    study = tiny_study()
    assert [box for _, box in places_of_step(SCANS, study, 0, 1)] == [(slice(None),) * 3] * 2
    assert draw_batch(SCANS, study, CPU, step=0, seed=1).real.shape[2:] == SHAPE


def test_a_batch_holds_the_patches_drawn_of_volume_and_labels_alike() -> None:
    study = study_with((8, 6, 5))
    batch = draw_batch(SCANS, study, CPU, step=3, seed=1)
    assert batch.noise.shape[2:] == batch.real.shape[2:] == batch.given.shape[2:] == (8, 6, 5)
    for example, (row, box) in enumerate(places_of_step(SCANS, study, 3, 1)):
        np.testing.assert_array_equal(batch.real[example], SCANS.volumes[row][:, *box])
        np.testing.assert_array_equal(batch.given[example].argmax(dim=0), SCANS.classes[row][box])


def test_a_steps_patches_need_no_history_and_differ_between_steps_seeds_and_examples() -> None:
    study = study_with((4, 4, 4))
    drawn = [places_of_step(SCANS, study, step, seed) for step in range(6) for seed in range(3)]
    assert drawn == [places_of_step(SCANS, study, step, seed) for step in range(6) for seed in range(3)]
    boxes = [str(box) for places in drawn for _, box in places]
    assert len(set(boxes)) > 0.8 * len(boxes)


def test_a_training_on_patches_resumed_at_a_step_ends_in_the_same_bits(tmp_path: Path) -> None:
    study = study_with((8, 8, 8))

    def run(until: int, resumed: bool) -> str:
        state = new_state(study, 2 if resumed else 1, CPU)
        if resumed:
            load_state(tmp_path / "state.safetensors", state)
        list(train(state, SCANS, study, until_step=until, total_steps=4, seed=9))
        save_state(tmp_path / "state.safetensors", state, {})
        return parameters_digest(numpy_parameters(state.generator))

    unbroken = run(4, resumed=False)
    run(3, resumed=False)
    assert run(4, resumed=True) == unbroken


def test_patches_of_nothing_but_air_are_no_collapse() -> None:
    study = study_with((8, 8, 8), foreground=0.0)
    air = tiny_scans(2)
    air.classes[:], air.volumes[:] = 0, -1
    state = new_state(study, 1, CPU)
    head = state.generator.head
    head.weight.data.zero_()
    head.bias.data.fill_(-20)  # tanh: exactly -1 everywhere
    list(train(state, air, study, until_step=COLLAPSE_WINDOW, total_steps=80, seed=9))
    assert state.constant_steps == 0
