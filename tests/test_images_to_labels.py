"""The same networks and loop the other way: what is given and made, how scans vary, that a kill changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_anatomy import anatomy_study
from tiny_cohorts import SHAPE, tiny_scans, tiny_text, write_tiny_cohort
from torch import Tensor

from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import ABSENT, PreparedScans, needed_channels, prepare
from fedphantom.common.device import choose_device
from fedphantom.common.errors import ConfigError
from fedphantom.common.gan import image_variation
from fedphantom.common.gan.image_variation import inferred_classes, varied
from fedphantom.common.gan.losses import cross_entropy_and_dice
from fedphantom.common.gan.networks import made_classes, make_discriminator, make_generator, one_hot
from fedphantom.common.gan.training import draw_batch, train
from fedphantom.common.gan.training_state import TrainingState, load_state, new_state, save_state
from fedphantom.common.randomness import torch_generator
from fedphantom.common.study import Study, parse_study

CPU = choose_device("cpu")
SCANS = tiny_scans(3)


STUDY = anatomy_study()


def bits(state: TrainingState) -> list[bytes]:
    networks = (state.generator, state.discriminator)
    return [v.contiguous().numpy().tobytes() for n in networks for v in n.state_dict().values()]


# The study.


def test_what_is_laid_over_is_not_inferred_and_is_one_class() -> None:
    study = anatomy_study()
    assert study.inferred_labels == (0, 1)
    assert made_classes(study) == 3
    assert inferred_classes(study).tolist() == [0, 1, 2]
    assert made_classes(anatomy_study("[]")) == 3
    both = anatomy_study('["brain", "tumour"]', tiny_text().replace("brain = 1", "brain = 1, rim = 2"))
    assert both.inferred_labels == (0, 2)
    assert inferred_classes(both).tolist() == [0, 2, 1, 2]


@pytest.mark.parametrize("overlay", ['["background"]', '["bone"]', '["brain", "tumour"]'])
def test_an_overlay_that_leaves_nothing_to_infer_is_refused(overlay: str) -> None:
    with pytest.raises(ConfigError, match="overlay"):
        anatomy_study(overlay)


def test_a_generator_of_images_has_no_overlay() -> None:
    with pytest.raises(ConfigError, match="overlay"):
        parse_study(tiny_text().replace("preset", 'overlay = ["tumour"]\npreset', 1))


# The networks.


def test_images_are_given_and_probabilities_are_made() -> None:
    images, none = torch.from_numpy(SCANS.volumes), torch.zeros((3, 0, *SHAPE))
    with torch.inference_mode():
        made = make_generator(STUDY, 0)(images, none)
        logits, _ = make_discriminator(STUDY, 0)(images, made)
    assert made.shape == (3, 3, *SHAPE)
    assert (made >= 0).all()
    torch.testing.assert_close(made.sum(dim=1), torch.ones((3, *SHAPE)))
    assert logits.shape[:2] == (3, 1)


# The objective.


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much() -> None:
    truth = one_hot(torch.from_numpy(SCANS.classes), 3)
    assert cross_entropy_and_dice(truth, truth).item() == pytest.approx(0, abs=1e-4)
    assert cross_entropy_and_dice(truth.roll(1, dims=1), truth).item() > 5


def test_the_objective_is_cross_entropy_plus_one_minus_dice() -> None:
    p = torch.tensor([0.8, 0.3, 0.2, 0.7]).view(1, 2, 2, 1, 1)
    t = torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 2, 2, 1, 1)
    entropy = -(np.log(0.8) + np.log(0.7)) / 2
    dice = ((2 * 0.8 + 1) / (1.1 + 1 + 1) + (2 * 0.7 + 1) / (0.9 + 1 + 1)) / 2
    assert cross_entropy_and_dice(p, t).item() == pytest.approx(entropy + 1 - dice, rel=1e-4)


def test_a_class_that_no_scan_of_the_batch_holds_has_no_dice() -> None:
    truth = torch.zeros((1, 3, 4, 4, 4))
    truth[:, 0] = 1
    faint = truth * 0.98 + 0.02 / 3
    without = cross_entropy_and_dice(faint[:, :2], truth[:, :2])
    assert cross_entropy_and_dice(faint, truth).item() == pytest.approx(without.item(), abs=1e-6)


def test_an_impossible_certainty_stays_finite_and_has_a_gradient() -> None:
    raw = torch.tensor([200.0, -200.0]).view(1, 2, 1, 1, 1).requires_grad_()
    loss = cross_entropy_and_dice(raw.softmax(dim=1), torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


# How scans vary.


def variation(seed: int, scans: PreparedScans = SCANS, study: Study = STUDY) -> tuple[Tensor, Tensor]:
    images, classes = torch.from_numpy(scans.volumes), torch.from_numpy(scans.classes)
    return varied(images.clone(), classes.clone(), study, torch_generator(seed))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**40))
def test_varied_scans_stay_in_the_prepared_range_and_keep_at_least_one_channel(seed: int) -> None:
    images, classes = variation(seed)
    assert images.shape == SCANS.volumes.shape
    assert torch.isfinite(images).all()
    assert images.abs().max() <= 1
    assert set(classes.unique().tolist()) <= {0, 1, 2}
    for image in images:
        assert any((channel > ABSENT).any() for channel in image)
    assert (images[:, :, 0, 0, 0] == ABSENT).all()  # background is what it is in a prepared scan


def test_the_same_draw_gives_the_same_scans_and_another_gives_others() -> None:
    one, same, other = variation(3)[0], variation(3)[0], variation(4)[0]
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_channels_are_left_out_and_often_only_one_is_kept() -> None:
    kept = [int((image > ABSENT).flatten(1).any(dim=1).sum()) for seed in range(40) for image in variation(seed)[0]]
    assert {1, 2} == set(kept)
    assert 0.3 < np.mean(np.array(kept) == 1) < 0.9


def test_an_absent_channel_stays_absent_unless_it_is_painted_from_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = SCANS.volumes.copy()
    volumes[:, 1] = ABSENT
    lacking = PreparedScans(volumes, SCANS.classes, SCANS.patients, SCANS.sites, SCANS.headers)
    monkeypatch.setattr(image_variation, "PAINTED", 0.0)
    assert (torch.stack([variation(s, lacking)[0][:, 1] for s in range(20)]) == ABSENT).all()
    monkeypatch.setattr(image_variation, "PAINTED", 1.0)
    assert (torch.stack([variation(s, lacking)[0][:, 1] for s in range(20)]) > ABSENT).any()


def test_images_and_labels_move_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PAINTED": 0, "LEFT_OUT": 0, "NOISE": 0, "BLUR": 0, "BIAS": 0, "INVERTED": 0}.items():
        monkeypatch.setattr(image_variation, name, value)
    for seed in range(6):
        images, classes = variation(seed)
        inside = torch.from_numpy(np.array([0, 1, 1])[classes.numpy()]).bool()
        both = inside & (images[:, 0] > ABSENT + 1e-3)
        assert both.sum() / (inside | (images[:, 0] > ABSENT + 1e-3)).sum() > 0.75
        brain, tumour = images[:, 0][classes == 1], images[:, 0][classes == 2]
        assert tumour.mean() > brain.mean()  # as in the tiny cohort's rendering: curves rise


def test_about_half_of_the_scans_are_seen_as_they_are_but_for_channels_and_mirror() -> None:
    as_they_are = []
    for seed in range(40):
        images, classes = variation(seed)
        for image, index, own, truth in zip(images, classes, SCANS.volumes, SCANS.classes, strict=True):
            kept = (image > ABSENT).flatten(1).any(dim=1).numpy()
            for seen, maps in ((image.numpy(), index.numpy()), (image.numpy()[:, ::-1], index.numpy()[::-1])):
                if np.array_equal(seen[kept], own[kept]):
                    as_they_are.append(1)
                    assert np.array_equal(maps, inferred_classes(STUDY)[truth])
    assert 0.35 < len(as_they_are) / (40 * len(SCANS)) < 0.65


def test_patches_are_cut_from_scans_varied_whole() -> None:
    larger = tiny_text().replace("shape = [16, 16, 16]", "shape = [24, 24, 24]")
    uncut, patched = (anatomy_study(text=larger + end) for end in ("", "\n[training.patch]\nshape = [16, 16, 16]\n"))
    volumes = np.pad(SCANS.volumes, ((0, 0), (0, 0), (4, 4), (4, 4), (4, 4)), constant_values=ABSENT)
    classes = np.pad(SCANS.classes, ((0, 0), (4, 4), (4, 4), (4, 4)))
    scans = PreparedScans(volumes, classes, SCANS.patients, SCANS.sites, SCANS.headers)
    for step in range(6):
        whole, part = (draw_batch(scans, study, CPU, step=step, seed=1) for study in (uncut, patched))
        assert whole.given.shape[2:] == (24, 24, 24)
        assert part.given.shape == (patched.training.batch, 2, 16, 16, 16)
        assert part.real.shape == (patched.training.batch, *whole.real.shape[1:2], 16, 16, 16)
        for place in range(len(part.given)):
            both = torch.cat([whole.given[place], whole.real[place]])
            windows = both.unfold(1, 16, 1).unfold(2, 16, 1).unfold(3, 16, 1)
            cut = torch.cat([part.given[place], part.real[place]])[:, None, None, None]
            assert (windows == cut).all(dim=(0, 4, 5, 6)).any()


def test_painted_contrasts_have_no_order() -> None:
    brighter = []
    for seed in range(30):
        images, classes = variation(seed)
        for image, index in zip(images, classes, strict=True):
            for channel in image:
                if (channel > ABSENT).any() and (index == 2).any():
                    brighter.append(bool(channel[index == 2].mean() > channel[index == 1].mean()))
    assert 0.1 < np.mean(brighter) < 0.95  # rendered ones are always brighter


# The loop.


def test_a_batch_gives_images_and_asks_for_the_inferred_classes() -> None:
    batch = draw_batch(SCANS, STUDY, CPU, step=0, seed=1)
    assert batch.given.shape == (2, 2, *SHAPE)
    assert batch.noise.shape == (2, 0, *SHAPE)
    assert batch.real.shape == (2, 3, *SHAPE)
    assert (batch.real.sum(dim=1) == 1).all()


def test_training_learns_to_tell_the_classes() -> None:
    text = tiny_text().replace("local_steps", "generator_lr = 1e-2\nlocal_steps")
    study = anatomy_study(text=text)
    told = list(train(new_state(study, 1, CPU), SCANS, study, until_step=40, total_steps=40, seed=9))
    assert np.mean([t.reconstruction for t in told[-5:]]) < 0.6 * np.mean([t.reconstruction for t in told[:5]])


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_training_resumed_at_any_step_ends_in_the_same_bits(stop: int, tmp_path: Path) -> None:
    whole, broken, resumed = new_state(STUDY, 1, CPU), new_state(STUDY, 1, CPU), new_state(STUDY, 2, CPU)
    list(train(whole, SCANS, STUDY, until_step=4, total_steps=4, seed=9))
    list(train(broken, SCANS, STUDY, until_step=stop, total_steps=4, seed=9))
    save_state(tmp_path / "state", broken, {})
    load_state(tmp_path / "state", resumed)
    list(train(resumed, SCANS, STUDY, until_step=4, total_steps=4, seed=9))
    assert bits(resumed) == bits(whole)


# Cohorts that lack channels.


def write_t1_only(root: Path) -> Path:
    write_tiny_cohort(root, 2)
    for path in root.rglob("*FLAIR*"):
        path.unlink()
    return root


def test_a_cohort_of_one_channel_is_of_use_where_labels_are_made_and_nowhere_else(tmp_path: Path) -> None:
    cohort = read_cohort(write_t1_only(tmp_path / "c"))
    forward = parse_study(tiny_text())
    assert not check_cohort(cohort, forward).usable.patients
    assert needed_channels(cohort.scans[0], forward) == ("T1", "FLAIR")
    assert check_cohort(cohort, STUDY).ok
    scans = prepare(cohort, STUDY, tmp_path / "cache")
    assert (scans.volumes[:, 1] == ABSENT).all()
    assert (scans.volumes[:, 0] > ABSENT).any()


def test_scans_that_lack_other_channels_are_prepared_together_and_their_headers_tell_them_apart(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path / "c", 3)
    for number, channel in enumerate(("T1w", "FLAIR")):
        (path,) = (tmp_path / "c").rglob(f"sub-p{number:02d}*_{channel}.nii.gz")
        path.unlink()
    scans = prepare(read_cohort(tmp_path / "c"), STUDY, tmp_path / "cache")
    lacks = [[bool((channel == ABSENT).all()) for channel in volume] for volume in scans.volumes]
    assert lacks == [[True, False], [False, True], [False, False]]
    assert np.isfinite(scans.headers).all()
    storage = scans.headers[:, 18:28].reshape(3, 2, 5)  # five numbers of each channel's file
    scales = scans.headers[:, -4:].reshape(3, 2, 2)
    assert (~storage.any(axis=2)).tolist() == lacks
    assert (~scales.any(axis=2)).tolist() == lacks
    np.testing.assert_array_equal(scans.headers[0, :18], scans.headers[2, :18])  # of the first channel that it has


def test_a_scan_without_any_channel_of_the_study_is_of_no_use(tmp_path: Path) -> None:
    cohort = read_cohort(write_t1_only(tmp_path / "c"))
    study = anatomy_study(text=tiny_text(channels=("T2", "FLAIR")))
    report = check_cohort(cohort, study)
    assert not report.usable.patients
    assert {p.code for p in report.problems} >= {"missing-channel"}
