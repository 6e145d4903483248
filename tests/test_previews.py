"""Curves and previews of a run: what they show to whom, when they are due, and that they never stop a round."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard_reader import read_curves
from tiny_anatomy import anatomy_text
from tiny_cohorts import CHANNELS, tiny_scans, tiny_study, tiny_text, write_tiny_cohort
from trained_run import trained_run

from fedphantom.client.egress import FAKE_METRICS
from fedphantom.client.local_training import pictured
from fedphantom.common import previews
from fedphantom.common.device import choose_device
from fedphantom.common.errors import ConfigError, DataError
from fedphantom.common.gan.generation import load_generator, paint
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.journal import Journal, read_journal
from fedphantom.common.labels.folder import read_label_folder
from fedphantom.common.montage import Pictured, montage
from fedphantom.common.previews import preview_due, schedule_previews
from fedphantom.common.randomness import derived_seed
from fedphantom.common.site_folder import SiteFolder, site_material
from fedphantom.common.study import parse_study
from fedphantom.server.checkpoints import RoundRecord, latest_checkpoint
from fedphantom.server.commands import simulation_text
from fedphantom.server.rounds import Progress
from fedphantom.server.run_folder import RunFolder
from fedphantom.server.run_pictures import draw_preview
from fedphantom.server.simulation import Engine, SimulationResult

TEXT = tiny_text(rounds=2, local_steps=3)
ENSEMBLE = tiny_text(rounds=1, local_steps=3) + '[federation]\nsharing = "ensemble"\n'
SITES = ("site-a", "site-b")


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cohorts")
    return {name: write_tiny_cohort(root / name, 6, seed) for seed, name in enumerate((*SITES, "public"))}


def federation(
    out: Path,
    cohorts: dict[str, Path],
    every: int | None,
    text: str = TEXT,
    engine: Engine = "local",
    public: str | None = "public",
    progress: Progress = lambda record: None,
    say: Callable[[str], None] = lambda text: None,
) -> SimulationResult:
    return trained_run(
        text,
        {site: cohorts[site] for site in SITES},
        out,
        engine=engine,
        progress=progress,
        preview_every=every,
        public=cohorts[public] if public else None,
        say=say,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cohorts: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    assert federation(out, cohorts, every=2).not_drawn == 0
    return out


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "previews").glob("*.png"))


def size(png: Path) -> tuple[int, int]:
    head = png.read_bytes()[16:24]
    return int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")


def columns(png: Path) -> int:
    return (size(png)[0] - 75) // 125


# Curves


def test_the_coordinators_curves_hold_figures_on_fakes_and_on_what_was_sent_and_nothing_of_real_scans(
    run: Path,
) -> None:
    found = read_curves(run / "tensorboard")
    sent = {f"{name}/{site}" for name in ("update norm", "cosine to mean", "rounds missed") for site in SITES}
    assert found.keys() == {*FAKE_METRICS, "sites", "seconds"} | sent
    assert list(found["fake_mean"]) == [1, 2]
    told = json.loads((run / "summary.json").read_text())["rounds"]
    for record in told:
        assert found["fake_std"][record["round"]] == pytest.approx(record["metrics"]["fake_std"], rel=1e-6)


def test_a_sites_losses_on_real_scans_lie_in_its_own_folder_alone(run: Path) -> None:
    for site in SITES:
        found = read_curves(run / "sites" / site / "tensorboard")
        assert {"adversarial", "reconstruction", "discriminator"} <= found.keys()
        assert list(found["reconstruction"]) == list(range(1, 7))
        left = [
            entry.facts for entry in read_journal(run / "sites" / site / "journal.jsonl") if "metrics" in entry.facts
        ]
        assert all(set(facts["metrics"]) == set(FAKE_METRICS) for facts in left)  # type: ignore[arg-type, call-overload]  # a table
    elsewhere = [path for path in run.rglob("events.*") if "sites" not in path.relative_to(run).parts]
    assert elsewhere
    assert not any(
        b"reconstruction" in path.read_bytes() or b"discriminator" in path.read_bytes() for path in elsewhere
    )


# Previews


def test_a_preview_is_drawn_every_k_rounds_by_coordinator_and_site(run: Path) -> None:
    assert pictures(run) == ["round-002.png"]
    for site in SITES:
        assert pictures(run / "sites" / site) == ["round-002.png"]


def test_the_coordinators_preview_shows_public_maps_without_a_real_scan_and_the_sites_its_own_beside(run: Path) -> None:
    assert columns(run / "previews" / "round-002.png") == 1 + len(CHANNELS)
    own = run / "sites" / "site-a" / "previews" / "round-002.png"
    assert columns(own) == 1 + 2 * len(CHANNELS)
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    maps = read_label_folder(run / "previews" / "labels", parse_study(TEXT).volume_grid())
    assert {sampled.chain.source.kind for sampled in maps} == {"public"}


def test_the_last_preview_shows_the_generator_that_the_run_leaves(run: Path) -> None:
    study = parse_study(TEXT)
    generator = load_generator(run / "generator.safetensors", choose_device("cpu"))
    maps = read_label_folder(run / "previews" / "labels", study.volume_grid())
    classes = np.searchsorted(study.label_values, np.stack([sampled.labels for sampled in maps])).astype(np.uint8)
    painted = paint(generator.network, classes, study, derived_seed(study.seed, "preview"), generator.device)
    shown = [Pictured(f"map {i + 1}", classes[i], painted[i]) for i in range(2)]
    assert (run / "previews" / "round-002.png").read_bytes() == montage(study, shown)


def test_a_procedural_patient_in_a_sites_preview_is_told_from_a_person() -> None:
    study, scans = tiny_study(), tiny_scans(2)
    shown = pictured(make_generator(study, 0), scans, study, 0, choose_device("cpu"), frozenset({scans.patients[1]}))
    assert [one.procedural for one in shown] == [False, True]


def test_a_network_from_images_to_labels_is_pictured_at_the_sites_alone(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    text, said = anatomy_text(text=tiny_text(rounds=1, local_steps=2)), list[str]()
    assert federation(tmp_path / "run", cohorts, every=1, text=text, say=said.append).not_drawn == 0
    [told] = [line for line in said if "--preview-every" in line]
    assert "no pictures of this study in OUT/previews, for its network maps images to labels" in told
    assert pictures(tmp_path / "run") == []
    own = tmp_path / "run" / "sites" / "site-a" / "previews" / "round-001.png"
    assert columns(own) == 1 + len(CHANNELS)
    site = SiteFolder.open(tmp_path / "run" / "sites" / "site-a")
    scans = site_material(site, site.study())
    first = scans.scans_of(scans.coins.training_patients())
    shown = pictured(make_generator(site.study(), 0), first, site.study(), 0, choose_device("cpu"))
    assert [one.caption for one in shown] == ["scan 1", "inferred", "scan 2", "inferred"]
    for drawn, inferred in zip(shown[::2], shown[1::2], strict=True):
        np.testing.assert_array_equal(drawn.synthetic, inferred.synthetic)
        assert set(np.unique(inferred.classes)) <= {0, 1}  # the tumour is laid over, never inferred
    np.testing.assert_array_equal(shown[0].classes, first.classes[0])


def test_previews_change_nothing_of_the_training(tmp_path: Path, cohorts: dict[str, Path], run: Path) -> None:
    plain = federation(tmp_path / "plain", cohorts, every=None)
    assert plain.generator.read_bytes() == (run / "generator.safetensors").read_bytes()
    assert not (tmp_path / "plain" / "previews").exists()


def test_where_no_weights_leave_the_sites_it_is_said_that_the_coordinator_pictures_nothing(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    said = list[str]()
    text = ENSEMBLE.replace("ensemble", "volumes")
    federation(tmp_path / "run", cohorts, every=1, text=text, public=None, say=said.append)
    assert any("for no weights leave the sites" in line for line in said)
    assert pictures(tmp_path / "run") == []
    assert pictures(tmp_path / "run" / "sites" / "site-a") == ["round-001.png"]


def test_of_an_ensemble_every_member_paints_the_same_public_map(tmp_path: Path, cohorts: dict[str, Path]) -> None:
    federation(tmp_path / "out", cohorts, every=1, text=ENSEMBLE)
    assert pictures(tmp_path / "out") == ["round-001.png"]
    assert size(tmp_path / "out" / "previews" / "round-001.png")[1] == 30 + len(SITES) * 3 * 125 + 40


def test_without_a_public_cohort_where_one_is_needed_nothing_is_trained(
    tmp_path: Path, cohorts: dict[str, Path]
) -> None:
    with pytest.raises(ConfigError, match="without a public cohort"):
        federation(tmp_path / "out", cohorts, every=1, public=None)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_label_map_that_is_not_public_is_never_previewed(tmp_path: Path, run: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    shutil.copytree(run, folder.root)
    for sidecar in (folder.previews / "labels").glob("*_dseg.json"):
        sidecar.unlink()  # a label map without a chain counts as private
    checkpoint = latest_checkpoint(folder.checkpoints)
    assert checkpoint is not None
    draw_preview(folder, parse_study(TEXT), replace(checkpoint, round=4))
    assert pictures(folder.root) == ["round-002.png"]
    last = read_journal(folder.journal)[-1]
    assert last.event == "by-product-failed"
    assert last.facts == {"round": 4, "what": "preview", "kind": "PolicyRefused"}


# Failure


def test_a_preview_that_fails_stops_no_round_and_is_said(tmp_path: Path, cohorts: dict[str, Path], run: Path) -> None:
    def in_the_way(_: RoundRecord) -> None:
        (tmp_path / "out" / "previews" / "round-002.png").mkdir(exist_ok=True)

    spoiled = federation(tmp_path / "out", cohorts, every=2, progress=in_the_way)
    assert spoiled.generator.read_bytes() == (run / "generator.safetensors").read_bytes()
    assert spoiled.not_drawn == 1
    assert "1 curves or previews could not be written" in simulation_text(
        json.loads(spoiled.folder.summary.read_text()) | {"not_drawn": spoiled.not_drawn}
    )


def test_curves_that_cannot_be_written_stop_no_round_and_are_said(
    tmp_path: Path, cohorts: dict[str, Path], run: Path
) -> None:
    site = tmp_path / "out" / "sites" / "site-a"
    site.mkdir(parents=True)
    (site / "tensorboard").write_text("a file where the folder would be")
    spoiled = federation(tmp_path / "out", cohorts, every=None)
    assert spoiled.generator.read_bytes() == (run / "generator.safetensors").read_bytes()
    assert spoiled.not_drawn == Journal(site / "journal.jsonl").count("by-product-failed") == 2


# The schedule


def test_a_preview_is_due_in_every_kth_round(tmp_path: Path) -> None:
    assert preview_due(tmp_path, 3) is None
    schedule_previews(tmp_path, 3)
    assert [n for n in range(1, 10) if preview_due(tmp_path, n)] == [3, 6, 9]
    assert preview_due(tmp_path, 3) == tmp_path / "round-003.png"
    schedule_previews(tmp_path, None)
    assert preview_due(tmp_path, 3) is None


@pytest.mark.parametrize("content", ["", "[]", '{"every": 0}', '{"every": "two"}', '{"often": 2}'])
def test_a_damaged_schedule_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / previews._SCHEDULE).write_text(content)
    with pytest.raises(DataError, match="schedule of previews"):
        preview_due(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.network
def test_over_flower_the_same_previews_and_curves_are_drawn(
    tmp_path: Path, cohorts: dict[str, Path], run: Path
) -> None:
    assert federation(tmp_path / "out", cohorts, every=2, engine="flower").not_drawn == 0
    for name in pictures(run):
        assert (tmp_path / "out" / "previews" / name).read_bytes() == (run / "previews" / name).read_bytes()
        site = Path("sites") / "site-b" / "previews" / name
        assert (tmp_path / "out" / site).read_bytes() == (run / site).read_bytes()
    one, two = (read_curves(root / "tensorboard") for root in (run, tmp_path / "out"))
    assert one["fake_mean"] == two["fake_mean"]
