"""Procedural patients look as radiologists expect, differ between sites, and repeat to the byte."""

import hashlib
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from typer.testing import CliRunner

from fedphantom.common.cohort import ChannelSource
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.commands import cohort_app
from fedphantom.common.errors import ConfigError, StorageError
from fedphantom.common.labels.atlas import load_atlas
from fedphantom.common.labels.brain import BRAIN_LABELS, BrainLabels
from fedphantom.common.phantom.contrast import CHANNELS, draw_contrast, render
from fedphantom.common.phantom.patients import (
    PHANTOM_CHANNELS,
    PHANTOM_LABELS,
    PRIVATE_RANGES,
    draw_patient,
    draw_site_scanner,
    phantom_grid,
    write_phantom_cohort,
)
from fedphantom.common.study import PublicLabelsTable, parse_study
from fedphantom.common.volumes.nifti import read_label_map, read_volume

SPACING = (4.0, 4.0, 4.0)


@pytest.fixture(scope="module")
def patient():
    grid = phantom_grid(4.0)
    return draw_patient(np.random.default_rng(2), load_atlas(grid, BrainLabels()), grid.spacing_mm)


def _medians(labels, channels):
    """Median intensity per (channel, tissue), away from partial volume only as far as medians are."""
    return {
        (channel, tissue): float(np.median(voxels[labels == value]))
        for channel, voxels in zip(CHANNELS, channels, strict=True)
        for tissue, value in BRAIN_LABELS.items()
    }


def _slabs():
    """Every tissue as a thick slab, so that its middle is free of partial volume."""
    return np.repeat(np.arange(7, dtype=np.uint8), 8)[:, None, None] * np.ones((1, 24, 24), np.uint8)


@pytest.mark.parametrize("site", range(8))
def test_tissues_are_ordered_as_radiologists_expect_on_every_scanner(site):
    labels = _slabs()
    core = np.zeros_like(labels)
    for value in range(1, 7):
        core[8 * value + 2 : 8 * value + 6] = value
    scanner = replace(draw_site_scanner(0, site), bias=0.0)
    patient = draw_contrast(np.random.default_rng(site))
    m = _medians(core, render(labels, (5.0, 5.0, 5.0), scanner, patient))

    assert m["T1", "white"] > m["T1", "grey"] > m["T1", "csf"]
    assert m["T1", "white"] > m["T1", "oedema"] > m["T1", "necrosis"]
    assert m["T1c", "enhancing"] > m["T1c", "white"] > m["T1c", "grey"] > m["T1c", "csf"]
    assert m["T1c", "enhancing"] > m["T1c", "oedema"] > m["T1c", "necrosis"]
    assert m["T2", "csf"] > m["T2", "oedema"] > m["T2", "grey"] > m["T2", "white"]
    assert m["T2", "necrosis"] > m["T2", "grey"]
    assert m["FLAIR", "oedema"] == max(m["FLAIR", tissue] for tissue in BRAIN_LABELS)
    assert m["FLAIR", "csf"] == min(m["FLAIR", tissue] for tissue in BRAIN_LABELS if tissue != "background")
    assert m["FLAIR", "grey"] > m["FLAIR", "white"]


def test_a_patient_shows_the_orderings_too(patient):
    parameters, labels = patient
    m = _medians(labels, render(labels, SPACING, replace(draw_site_scanner(0, 0), blur_mm=0.4), parameters.contrast))
    assert m["T1", "white"] > m["T1", "grey"] > m["T1", "csf"]
    assert m["T1c", "enhancing"] > m["T1c", "white"] > m["T1c", "necrosis"]
    assert m["T2", "csf"] > m["T2", "grey"] > m["T2", "white"]
    assert m["FLAIR", "oedema"] > m["FLAIR", "grey"] > m["FLAIR", "csf"]


def test_intensities_are_finite_never_negative_and_zero_outside_the_brain(patient):
    parameters, labels = patient
    channels = render(labels, SPACING, draw_site_scanner(0, 0), parameters.contrast)
    assert channels.shape == (4, *labels.shape)
    assert np.isfinite(channels).all()
    assert channels.min() >= 0
    assert not channels[:, labels == 0].any()
    assert (channels[:, labels != 0] > 0).all()


def test_noise_is_rician_and_as_strong_as_the_scanner_says(patient):
    parameters, labels = patient
    quiet = replace(draw_site_scanner(0, 0), noise=1e-9, gain=(1.0,) * 4, gamma=(1.0,) * 4, bias=0.0)
    clean = render(labels, SPACING, quiet, parameters.contrast)
    noisy = render(labels, SPACING, replace(quiet, noise=0.04), parameters.contrast)
    white = labels == BRAIN_LABELS["white"]
    assert np.std((noisy - clean)[0, white]) == pytest.approx(0.04, rel=0.1)
    loud = render(labels, SPACING, replace(quiet, noise=2.0), parameters.contrast)
    assert loud[0, white].mean() > 1.5  # a Gaussian's mean would stay below 1


def test_a_bias_field_varies_slowly_over_the_brain(patient):
    parameters, labels = patient
    flat = replace(draw_site_scanner(0, 0), noise=1e-9, bias=0.0)
    ratio = render(labels, SPACING, replace(flat, bias=0.15), parameters.contrast)[0][labels > 0] / np.maximum(
        render(labels, SPACING, flat, parameters.contrast)[0][labels > 0], 1e-6
    )
    assert 0.03 < np.std(np.log(ratio)) < 0.3


def _template(name):
    return parse_study((files("fedphantom.server") / "study_templates" / f"{name}.toml").read_text())


PUBLIC_TABLES = {"defaults": PublicLabelsTable(source="atlas")} | {
    name: _template(name).public_labels for name in ("tiny", "phantom", "promised")
}


@pytest.mark.parametrize("public", PUBLIC_TABLES.values(), ids=PUBLIC_TABLES.keys())
def test_private_anatomy_and_tumour_shapes_lie_outside_what_the_public_sampler_draws(public):
    private = PRIVATE_RANGES
    assert private.displacement_mm[0] > public.displacement_mm
    assert private.smoothness_mm[0] > public.smoothness_mm
    assert private.rotation_deg > public.rotation_deg
    assert private.shift_mm > public.shift_mm
    assert private.size * (1 - private.scale) < 1 - public.scale
    for name in ("core_share", "necrosis_share", "irregularity", "depth_mm"):
        ours, theirs = getattr(private.lesion, name), getattr(public.lesion, name)
        assert ours[1] - theirs[1] > 0.25 * (theirs[1] - theirs[0]) or theirs[0] - ours[0] > 0.25 * (
            theirs[1] - theirs[0]
        )


@pytest.mark.parametrize("name", ["phantom", "promised"])
def test_a_templates_tumours_are_on_average_as_large_as_published_ones(name):
    """Loebel et al. 2025 (doi:10.1016/j.bas.2025.104324): 97.88, 33.62 and 17.02 cm³, nested; radii drawn evenly."""
    lesion = PUBLIC_TABLES[name].lesion
    radii = np.linspace(*lesion.radius_mm, 10_001) / 10
    assert (4 / 3 * np.pi * radii**3).mean() == pytest.approx(97.88, rel=0.05)
    assert np.mean(lesion.core_share) == pytest.approx((33.62 / 97.88) ** (1 / 3), abs=0.01)
    assert np.mean(lesion.necrosis_share) == pytest.approx(((33.62 - 16.60) / 33.62) ** (1 / 3), abs=0.01)


def test_the_grid_holds_the_brain_in_multiples_of_eight():
    assert phantom_grid(5.0).shape == (32, 40, 32)
    assert phantom_grid(2.0).shape == (80, 96, 80)
    for spacing in (2.5, 4.0, 6.0):
        shape = phantom_grid(spacing).shape
        assert all(n % 8 == 0 and n * spacing >= mm for n, mm in zip(shape, (145, 181, 155), strict=True))


def test_patients_stay_inside_their_grid_and_have_every_tissue():
    grid = phantom_grid(5.0)
    atlas = load_atlas(grid, BrainLabels())
    cut, values = 0, []
    for seed in range(5):
        labels = draw_patient(np.random.default_rng(seed), atlas, grid.spacing_mm)[1]
        faces = [labels[[0, -1]], labels[:, [0, -1]], labels[:, :, [0, -1]]]
        cut += sum(int((face > 0).sum()) for face in faces)
        values.append(set(np.unique(labels)))
    assert cut / 5 < 0.002 * labels.size
    assert all(v >= {0, 1, 2, 3, 4, 5} for v in values)
    assert sum(6 in v for v in values) >= 3  # a small core may hold no necrosis at 5 mm


def _bytes(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantoms") / "cohort"
    write_phantom_cohort(root, patients=4, sites=2, spacing_mm=8.0, seed=1)
    return root


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_patients(written, tmp_path):
    write_phantom_cohort(tmp_path / "again", patients=4, sites=2, spacing_mm=8.0, seed=1)
    write_phantom_cohort(tmp_path / "other", patients=4, sites=2, spacing_mm=8.0, seed=2)
    assert _bytes(written) == _bytes(tmp_path / "again")
    other = _bytes(tmp_path / "other")
    volumes = [name for name in other if name.endswith(".nii.gz")]
    assert len(volumes) == 4 * 5
    assert all(other[name] != _bytes(written)[name] for name in volumes)


def test_the_cohort_reads_back_with_sites_channels_and_labels(written):
    cohort = read_cohort(written)
    assert cohort.layout == "bids"
    assert cohort.channels == PHANTOM_CHANNELS
    assert {name: value for value, name in cohort.label_names.items()} == PHANTOM_LABELS
    assert [p.site for p in cohort.patients] == ["A", "B", "A", "B"]
    labels, _ = read_label_map(cohort.scans[0].label)
    assert labels.shape == phantom_grid(8.0).shape


def test_sites_are_not_identically_distributed(written):
    def figures(site):
        scans = read_cohort(written).by_site()[site].scans
        out = []
        for scan in scans:
            labels, _ = read_label_map(scan.label)
            t1, _ = read_volume(ChannelSource(scan.channels["T1"].path))
            grey, white = (np.median(t1[labels == BRAIN_LABELS[t]]) for t in ("grey", "white"))
            out.append((white, white / grey))
        return np.array(out)

    a, b = figures("A"), figures("B")
    for column in (0, 1):  # brightness, and the contrast that normalisation leaves
        between = abs(a[:, column].mean() - b[:, column].mean())
        assert between > max(np.ptp(a[:, column]), np.ptp(b[:, column]))


def test_scanners_differ_in_everything_and_do_not_depend_on_how_many_there_are():
    scanners = [draw_site_scanner(1, site) for site in range(3)]
    for name in ("gain", "gamma", "noise", "blur_mm", "bias"):
        assert len({getattr(s, name) for s in scanners}) == 3
    assert draw_site_scanner(1, 2) == scanners[2]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        for seed in range(10):
            gammas = np.array([draw_site_scanner(seed, s).gamma for s in (one, other)])
            assert (np.abs(gammas[0] - gammas[1]) > 0.13).all()


@pytest.mark.parametrize(
    "arguments",
    [{"patients": 0}, {"patients": 2, "sites": 3}, {"patients": 2, "sites": 0}, {"patients": 1, "seed": -1},
     {"patients": 1, "spacing_mm": 0.0}, {"patients": 1, "spacing_mm": 40.0}, {"patients": 40, "sites": 27}],
    ids=str,
)  # fmt: skip
def test_arguments_outside_their_range_are_refused(tmp_path, arguments):
    with pytest.raises(ConfigError):
        write_phantom_cohort(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(StorageError):
        write_phantom_cohort(tmp_path, patients=1, spacing_mm=10.0)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_makes_a_cohort(tmp_path):
    arguments = ["phantom", str(tmp_path / "out"), "--patients", "2", "--sites", "2", "--spacing", "10", "--seed", "3"]
    result = CliRunner().invoke(cohort_app, arguments)
    assert result.exit_code == 0, result.output
    assert len(read_cohort(tmp_path / "out").patients) == 2
