"""What a site's doctor says of the machine: GPU, memory by estimate and by one real step, disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from promised import promised_text
from tiny_cohorts import tiny_study, tiny_text

from fedphantom.client.node.doctor import hardware, measured_step
from fedphantom.client.node.doctor.disk import check_disk, folder_bytes, needed_bytes
from fedphantom.client.node.doctor.hardware import Accelerator, check_gpu, check_memory, check_step
from fedphantom.client.node.doctor.measured_step import MeasuredStep, measure_step
from fedphantom.client.node.doctor.memory_estimate import step_memory
from fedphantom.common.errors import StorageError
from fedphantom.common.study import Study, parse_study

NO_GPU = Accelerator(None, None, None)
H100 = Accelerator("NVIDIA H100", "570.1", "12.8", free=70_000_000_000, total=80_000_000_000)


def site(root: Path, text: str) -> Path:
    """A folder as far as a step needs one."""
    root.mkdir()
    (root / "study.toml").write_text(text)
    (root / "site.toml").write_text('name = "site-a"\ncohort = "none"\nstudy = "study.toml"\n')
    return root


def sized(shape: tuple[int, int, int], batch: int = 2, **options: object) -> Study:
    study = tiny_study(batch=batch, **options)
    return study.model_copy(update={"grid": study.grid.model_copy(update={"shape": shape})})


# GPU.


@pytest.mark.parametrize(
    ("seen", "light", "words"),
    [
        (H100, "green", "NVIDIA H100, 80.0 GB, driver 570.1, CUDA 12.8"),
        (NO_GPU, "yellow", "CPU only: rounds take long"),
        (Accelerator(None, "570.1", None), "yellow", "built for the CPU"),
        (Accelerator(None, "470.1", "12.8"), "yellow", "can use no GPU"),
    ],
    ids=["a GPU", "none", "a CPU build", "an old driver"],
)
def test_a_gpu_is_told_or_why_there_is_none(seen: Accelerator, light: str, words: str) -> None:
    outcome = check_gpu(seen)
    assert (outcome.light, words in outcome.found) == (light, True)


def test_the_driver_is_read_from_where_the_kernel_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 02:11:59 UTC 2025\n")
    monkeypatch.setattr(hardware, "DRIVER_FILE", file)
    assert Accelerator.here().driver == "570.124.06"
    monkeypatch.setattr(hardware, "DRIVER_FILE", tmp_path / "none")
    assert Accelerator.here().driver is None


# Memory by estimate.


def test_a_step_that_does_not_fit_is_red_one_that_barely_does_yellow() -> None:
    study = tiny_study()
    needed = step_memory(study).bytes("cpu")
    assert check_memory(study, NO_GPU, needed - 1).light == "red"
    assert check_memory(study, NO_GPU, needed + 1).light == "yellow"
    assert check_memory(study, NO_GPU, 2 * needed).light == "green"
    assert check_memory(study, H100, 0).light == "green"  # the GPU's own memory counts


def test_a_brain_at_full_resolution_fits_no_machine_whole_and_any_in_patches() -> None:
    whole = sized((192, 224, 192), preset="base")
    assert check_memory(whole, NO_GPU, 16_000_000_000).light == "red"
    text = tiny_text(preset="base").replace("batch = 2", "batch = 2\npatch = { shape = [16, 16, 16] }")
    assert check_memory(parse_study(text), NO_GPU, 16_000_000_000).light == "green"


@settings(max_examples=4, deadline=None)
@given(st.integers(3, 5), st.sampled_from([16, 24]))
def test_what_is_kept_grows_with_the_batch_and_parameters_do_not(batch: int, size: int) -> None:
    one, two, more = (step_memory(sized((size,) * 3, number)) for number in (1, 2, batch))
    assert more.parameters == one.parameters > 0
    # Each scan of the batch takes the same; what does not depend on it is less than one of them.
    each = two.activations - one.activations
    assert more.activations - one.activations == (batch - 1) * each
    assert 0 <= one.activations - each < each


def test_networks_that_read_images_also_hold_the_whole_scans_that_are_varied() -> None:
    text = tiny_text().replace("batch = 2", "batch = 2\npatch = { shape = [16, 16, 16] }")
    reads = parse_study(text.replace("[network]", '[network]\nmaps = "images-to-labels"'))
    larger = reads.model_copy(update={"grid": reads.grid.model_copy(update={"shape": (32, 32, 32)})})
    # Patches are as before; the scans that they are cut from are not.
    assert step_memory(larger).activations - step_memory(reads).activations == 5 * 4 * 2 * 3 * (32**3 - 16**3)


# Memory by one real step.


def test_a_real_step_takes_no_more_than_was_estimated(tmp_path: Path) -> None:
    step = measure_step(site(tmp_path / "site", tiny_text()))
    assert isinstance(step, MeasuredStep)
    assert 0 < step.seconds < 60
    assert 0.4 * step_memory(tiny_study()).bytes("cpu") < step.bytes < step_memory(tiny_study()).bytes("cpu")
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == ["site.toml", "study.toml"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "size", "maps"), [("base", 32, "labels-to-images"), ("small", 40, "images-to-labels")]
)
def test_the_estimate_is_above_what_a_step_takes_and_not_far(tmp_path: Path, preset: str, size: int, maps: str) -> None:
    text = tiny_text(preset=preset, channels=("T1", "T1c", "T2", "FLAIR")).replace("[16, 16, 16]", str([size] * 3))
    text = text.replace("[network]", f'[network]\nmaps = "{maps}"')
    step = measure_step(site(tmp_path / "site", text))
    assert isinstance(step, MeasuredStep)
    estimate = step_memory(parse_study(text)).bytes("cpu")
    assert step.bytes < estimate < 2 * step.bytes


@pytest.mark.slow
def test_a_study_under_a_promise_spends_nothing_on_a_step(tmp_path: Path) -> None:
    root = site(tmp_path / "site", promised_text("a" * 64))
    assert isinstance(measure_step(root), MeasuredStep)
    assert not (root / "ledger.jsonl").exists()


def test_a_step_that_the_system_ended_is_told_as_want_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -KILL $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    outcome = check_step(tiny_study(), NO_GPU, 1, lambda: measure_step(tmp_path))
    assert outcome.light == "red"
    assert "too little memory" in outcome.found


def test_a_step_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(measured_step, "STEP_S", 0.2)
    assert "not done after" in str(measure_step(tmp_path))


def test_a_gpu_without_enough_memory_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(study: Study) -> MeasuredStep:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(measured_step, "_step", fail)
    assert measured_step.main([str(site(tmp_path / "site", tiny_text()))]) == 0
    assert json.loads(capsys.readouterr().out) == {"failed": "the GPU's memory was not enough"}


def test_a_measured_step_is_green_or_yellow_by_what_is_there_and_says_how_long_a_round_takes() -> None:
    study, step = tiny_study(local_steps=100), MeasuredStep(3.0, 1_000_000_000)
    ample, tight = (check_step(study, NO_GPU, there, lambda: step) for there in (2_000_000_000, 1_050_000_000))
    assert (ample.light, tight.light) == ("green", "yellow")
    assert "a round of 100 steps takes about 5 min" in ample.found
    assert asdict(ample)["fix"] == ""


def test_memory_is_the_containers_where_that_has_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = hardware.available_memory()
    assert 0 < machine <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name, value in (("max", "900000000"), ("current", "400000000")):
        (tmp_path / f"memory.{name}").write_text(f"{value}\n")
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    assert hardware.available_memory() == 500_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.available_memory() > 500_000_000


# Disk.


def test_a_disk_is_red_yellow_or_green_by_what_the_study_needs(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert check_disk(tmp_path, 2 * free).light == "red"
    assert check_disk(tmp_path, int(0.75 * free)).light == "yellow"
    assert check_disk(tmp_path, free // 4).light == "green"


@pytest.fixture
def small_disk(tmp_path: Path) -> Callable[[], Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], check=False).returncode:
        pytest.skip("only the superuser mounts a file system")
    yield place  # type: ignore[misc]  # a fixture
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_red(small_disk: Path) -> None:
    assert check_disk(small_disk, 2_000_000).light == "red"
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(2_000_000))
    assert check_disk(small_disk, 1).light == "red"


def test_a_folder_that_cannot_be_written_to_is_an_error_of_the_storage() -> None:
    with pytest.raises(StorageError, match="may not be written to"):
        check_disk(Path("/proc/fedphantom"), 1)


def test_the_need_is_of_cache_state_rounds_and_logs_and_a_cache_that_is_there_is_not_needed_again() -> None:
    study = sized((64, 64, 64))
    scan = 64**3 * (2 * 4 + 1)
    fresh, prepared = (needed_bytes(study, 40, 1_000_000, done) for done in (0, 40 * scan))
    assert fresh - prepared == 40 * scan
    assert needed_bytes(study, 40, 2_000_000, 0) > fresh
    assert prepared > 200_000_000


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 19))
def test_the_need_does_not_tell_fewer_than_twenty_scans_apart(scans: int) -> None:
    study = sized((64, 64, 64))
    assert needed_bytes(study, scans, 0, 0) == needed_bytes(study, 20, 0, 0)


@settings(max_examples=5, deadline=None)
@given(st.integers(10_000, 16_000))
def test_the_words_do_not_tell_how_many_scans_there_are(scans: int) -> None:
    study = sized((16, 16, 16))
    place = Path(__file__).parent
    told = {check_disk(place, needed_bytes(study, n, 0, 0)).found.partition("; ")[2] for n in (10_000, scans)}
    assert len(told) == 1


def test_a_folders_size_is_of_all_files_below(tmp_path: Path) -> None:
    assert folder_bytes(tmp_path / "none") == 0
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(10))
    (tmp_path / "c").write_bytes(bytes(5))
    assert folder_bytes(tmp_path) == 15
