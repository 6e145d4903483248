"""``large_audit.py FOLDER``: an audit of 100 members and 100 holdout patients, in a process of its own; prints JSON.

48³ voxels, four channels, 500 synthetic volumes of a generator of the ``small`` size. Generators are at hand, one for
all: what is timed is all that an audit does beside training them. Scans show each structure at an intensity of its own,
times a gain that is the patient's, with noise, so that nobody is a copy of anyone. The generator learnt from the
reference patients for some steps, enough to heed its noise as little as trained ones do: ``large_audit.py FOLDER
untrained`` leaves that out, and every generator is then asked for as many draws as an audit allows. One control is
trained for a few steps, to say what all of them take.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from resident_peak import resident_peak_gib

from fedphantom.common.cohorts.disk_rows import let_go
from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.cohorts.roles import Role
from fedphantom.common.device import Device, choose_device
from fedphantom.common.gan.generation import as_read_back
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.parallel import side_by_side
from fedphantom.common.phantom.study import phantom_study
from fedphantom.common.randomness import numpy_generator
from fedphantom.common.volumes.grid import Grid
from fedphantom.privacy.attacks.interface import Labels, Networks
from fedphantom.privacy.audit.audit import AuditPlan, run_audit
from fedphantom.privacy.audit.control_training import painter, train_control_generator
from fedphantom.privacy.audit.material import AuditMaterial
from fedphantom.privacy.policy import TIERS

SIDE, SYNTHETIC, OTHERS = 100, 500, 16
"""Members (and holdout patients), released volumes, reference (and control) patients."""
MAPS = 64
"""Label maps drawn; patients and volumes share them, mirrored and shifted."""
STEPS, TIMED_STEPS = 2000, 10
LEARNT_STEPS = 60
"""Of the generator at hand; patients' errors differ by .14 then (standard deviation of logarithms), draws by .003."""
GAIN, NOISE = 0.3, 0.1
"""How far a patient's gain lies from 1 at most, in each channel; standard deviation of noise."""
STUDY = phantom_study("large-audit", 1, Grid((48, 48, 48), (4, 4, 4)))


def label_maps(number: int, rng: np.random.Generator) -> Labels:
    """Sampled maps, each shifted by some voxels of its own: shape (N, X, Y, Z), class indices."""
    sampler = make_label_sampler(STUDY, None)
    drawn = np.stack([sampler.sample(STUDY.seed, index).labels for index in range(MAPS)])
    classes = np.searchsorted(STUDY.label_values, drawn).astype(np.uint8)
    out = np.empty((number, *classes.shape[1:]), np.uint8)
    for i in range(number):
        one = classes[i % MAPS][:: -1 if rng.random() < 0.5 else 1]
        out[i] = np.roll(one, rng.integers(-3, 4, 3), axis=(0, 1, 2))
    return out


def at_hand_after(steps: int, scans: PreparedScans, device: Device) -> Networks:
    """A generator that learnt from scans for so many steps."""
    if steps:
        learnt = train_control_generator(scans, np.arange(len(scans.patients)), STUDY, device, steps=steps, seed=1)
        return Networks(learnt.generator)  # without a search of its weights, which is not part of what is timed
    network = make_generator(STUDY, STUDY.seed)
    device.place(network)
    return Networks(painter(network, STUDY, device))


def main(folder: Path, steps: int) -> None:
    """Make patients, audit, print what it took."""
    device, rng = choose_device("cpu"), numpy_generator(1, "large audit")
    wanted: dict[Role, int] = {"member": SIDE, "holdout": SIDE, "reference": OTHERS, "control": OTHERS}
    roles = tuple(role for role, number in wanted.items() for _ in range(number))
    labels, synthetic_labels = label_maps(len(roles), rng), label_maps(SYNTHETIC, rng)
    shape = (len(STUDY.channels), *labels.shape[1:])
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.float32, (len(roles), *shape))
    intensity = rng.uniform(-0.8, 0.8, (shape[0], len(STUDY.labels)))
    for i, some in enumerate(labels):
        gain = 1 + GAIN * rng.uniform(-1, 1, (shape[0], 1, 1, 1))
        images[i] = np.clip(gain * intensity[:, some] + rng.normal(0, NOISE, shape), -1, 1)
        let_go(images)
    apart = np.flatnonzero(np.array(roles) == "reference")
    names = tuple(f"p{i}" for i in apart)
    reference = PreparedScans(images[apart], labels[apart], names, ("A",) * len(apart), np.zeros((len(apart), 0)))
    target = at_hand_after(steps, reference, device)
    synthetic = np.lib.format.open_memmap(folder / "synthetic.npy", "w+", np.float32, (SYNTHETIC, *shape))
    for i, some in enumerate(synthetic_labels):
        synthetic[i] = as_read_back(target.generator(some[None], i))[0]
        let_go(synthetic)
    patients = tuple(f"p{i}" for i in range(len(roles)))
    material = AuditMaterial(
        images=images,
        labels=labels,
        patients=patients,
        roles=roles,
        sites=("A",) * len(roles),
        target=target,
        synthetic=synthetic,
        synthetic_labels=synthetic_labels,
        generator_sha256="0" * 64,
        cohort_digest="0" * 64,
        as_released=as_read_back,
        target_steps=STEPS,
        header=np.zeros((len(roles), 0)),
        generator_named_by="the coordinator's journal",
    )

    def at_hand(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
        return target

    plan = AuditPlan(release="volumes", seed=1, training_seed=1, steps=STEPS, scans_per_step=STUDY.training.batch)
    began, processor_began = time.perf_counter(), time.process_time()
    spent: dict[str, float] = {}
    stage_now, since = "before", began

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal stage_now, since
        now = time.perf_counter()
        spent[stage_now] = spent.get(stage_now, 0.0) + now - since
        stage_now, since = stage, now

    run_audit(material, plan, TIERS["controlled"], at_hand, at_hand, progress)
    audit_s, peak = time.perf_counter() - began, resident_peak_gib()
    processor_s = time.process_time() - processor_began
    scans = PreparedScans(images, labels, patients, ("A",) * len(roles), np.zeros((len(roles), 0)))

    def trained(seed: int) -> float:
        started = time.perf_counter()
        train_control_generator(scans, np.arange(OTHERS), STUDY, device, steps=TIMED_STEPS, seed=seed)
        return time.perf_counter() - started

    started = time.perf_counter()
    list(side_by_side([lambda: trained(1), lambda: trained(2)], 2))
    facts = {
        "audit_seconds": audit_s,
        "audit_processor_seconds": processor_s,
        "peak_mb": peak * 2**30 / 1e6,
        "controls_seconds": (time.perf_counter() - started) / 2 / TIMED_STEPS * STEPS * (2 + plan.negative_seeds),
        "stages": {name: round(seconds, 1) for name, seconds in spent.items()},
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), 0 if "untrained" in sys.argv[2:] else LEARNT_STEPS)
