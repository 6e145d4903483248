"""An experiment, not a command: how much of the anatomy a label network infers is right.

    python benchmarks/anatomy.py NETWORK.safetensors --out DIR [--patients 16] [--seed 20261126]

NETWORK is the generator of a study that ``study new --template anatomy`` wrote. Three cohorts whose anatomy is known
are made in DIR and inferred by ``labels infer``'s own code, whatever the confidence: procedural patients of a scanner
and a seed that no training saw, the same with T1 alone, and the real MNI152 T1 without its skull against its tissue
maps (a check of contrast transfer: every procedural patient is a warp of that anatomy). Dice of csf, grey and white
matter outside what was drawn; the intervals of patients are bootstrapped over them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nilearn.datasets import (
    load_mni152_brain_mask,
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)
from numpy.typing import NDArray

from fedphantom.client.evaluation.figures import over_patients
from fedphantom.common.anatomy.cohort import infer_cohort
from fedphantom.common.atomic import write_atomic
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.device import choose_device
from fedphantom.common.gan.generation import LoadedGenerator, load_generator
from fedphantom.common.labels.private_name import site_secret
from fedphantom.common.phantom.patients import write_phantom_cohort

TISSUES = ("csf", "grey", "white")
SPACING_MM = 3.0
REAL = "the real MNI152 T1"


def cohorts(out: Path, patients: int, seed: int) -> dict[str, Path]:
    """Make them; what each is to its folder."""
    everything, t1, real = out / "procedural", out / "procedural-t1", out / "mni152"
    if not everything.exists():
        write_phantom_cohort(everything, patients, 1, SPACING_MM, seed)
    if not t1.exists():
        shutil.copytree(everything, t1)
        for file in t1.rglob("*.nii.gz"):
            if not file.name.endswith(("_dseg.nii.gz", "_T1w.nii.gz")) or "_ce-" in file.name:
                file.unlink()
                file.with_name(file.name.replace(".nii.gz", ".json")).unlink(missing_ok=True)
    folder = real / "sub-mni152" / "anat"
    if not folder.exists():
        folder.mkdir(parents=True)
        scan, brain = load_mni152_template(resolution=1), load_mni152_brain_mask(resolution=1)
        cut = np.asarray(scan.dataobj, np.float32) * (np.asarray(brain.dataobj) > 0)
        image = nib.Nifti1Image(cut, scan.affine)  # type: ignore[no-untyped-call]  # nibabel leaves it untyped
        nib.save(image, folder / "sub-mni152_T1w.nii.gz")
    return {"procedural patients": everything, "procedural patients, T1 alone": t1, REAL: real}


def inferred(network: LoadedGenerator, cohort: Path, out: Path) -> tuple[dict[str, NDArray[np.uint8]], list[float]]:
    """Every patient's inferred label map in the study's values, and the confidences."""
    if not out.exists():
        secret = site_secret(out.with_name(f"{out.name}.secret"))
        infer_cohort(read_cohort(cohort), network, out, secret=secret, threshold=0.0)
    maps, confidences = {}, []
    for file in sorted(out.rglob("*_dseg.nii.gz")):
        maps[file.parents[1].name] = labels_of(file)
        sidecar = json.loads(file.with_name(file.name.replace(".nii.gz", ".json")).read_text(encoding="utf-8"))
        confidences.append(float(sidecar["Confidence"]))
    return maps, confidences


def procedural_truth(cohort: Path, patient: str) -> NDArray[np.uint8]:
    """As it was made."""
    return labels_of(next((cohort / patient / "anat").glob("*_dseg.nii.gz")))


def real_truth(values: dict[str, int]) -> NDArray[np.uint8]:
    """The tissue of the largest share in each voxel of the brain."""
    brain, grey, white = (
        np.asarray(load(resolution=1).dataobj, np.float32)
        for load in (load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template)
    )
    shares = np.stack([1 - brain, np.clip(brain - grey - white, 0, 1), grey * brain, white * brain])
    of_share = np.array([0, *(values[name] for name in TISSUES)], np.uint8)
    return np.asarray(of_share[shares.argmax(axis=0)], np.uint8)


def labels_of(file: Path) -> NDArray[np.uint8]:
    """A label map as the file holds it."""
    return np.asarray(nib.load(file).dataobj, np.uint8)  # type: ignore[attr-defined]  # nibabel's base class lacks it


def dice(found: NDArray[np.uint8], truth: NDArray[np.uint8], values: dict[str, int]) -> dict[str, float]:
    """Of each tissue, where the truth is a tissue or background: what was drawn is not inferred."""
    judged = np.isin(truth, [0, *values.values()])
    out = {}
    for name, value in values.items():
        one, other = (found == value) & judged, truth == value
        out[name] = float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))
    return out


def measure(network: LoadedGenerator, out: Path, patients: int, seed: int) -> dict[str, Any]:
    """Dice of every cohort; what ``result.json`` holds."""
    values = {name: network.study.labels[name] for name in TISSUES}
    result: dict[str, Any] = {"network_sha256": network.sha256, "seed": seed}
    for what, cohort in cohorts(out, patients, seed).items():
        maps, confidences = inferred(network, cohort, out / f"inferred-{cohort.name}")
        scores = [
            dice(found, real_truth(values) if what == REAL else procedural_truth(cohort, patient), values)
            for patient, found in maps.items()
        ]
        by_tissue = {name: np.array([one[name] for one in scores]) for name in TISSUES}
        means = np.mean(list(by_tissue.values()), axis=0)
        result[what] = {
            "patients": len(maps),
            "expected_by_the_network": round(float(np.mean(confidences)), 4),
            "dice": {name: over_patients(each).to_json() for name, each in {**by_tissue, "mean": means}.items()},
        }
    return result


def main() -> None:
    """Measure; ``result.json``."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("network", type=Path)
    parse.add_argument("--out", type=Path, required=True)
    parse.add_argument("--patients", type=int, default=16)
    parse.add_argument("--seed", type=int, default=20261126)
    given = parse.parse_args()
    network = load_generator(given.network, choose_device(), "images-to-labels")
    result = measure(network, given.out, given.patients, given.seed)
    text = json.dumps(result, indent=1)
    write_atomic(given.out / "result.json", (text + "\n").encode())
    print(text)


if __name__ == "__main__":
    main()
