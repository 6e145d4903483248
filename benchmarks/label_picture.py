"""A picture of label maps alone, without any voxel of a scan: what ``labels infer`` wrote, to be looked at and shown.

    python benchmarks/label_picture.py INFERRED [INFERRED ...] --out FILE.png

INFERRED is a folder that ``labels infer`` wrote. A row a label map, cropped to what is labelled: three planes through
the middle of what the hospital drew (all labels beyond the tissues'), the patient's left on the picture's right.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from anatomy import TISSUES
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

COLOURS = ("black", "#4f9fd9", "#8a8a8a", "#e6e6e6", "#f2c14e", "#d1495b", "#6a2c70")
"""Background, csf, grey matter, white matter, then drawn labels in the order of their values."""
PLANES = ("sagittal", "coronal", "axial")


def named_labels(folder: Path) -> list[str]:
    """By value, from the folder's ``dseg.tsv``."""
    rows = [line.split("\t") for line in (folder / "dseg.tsv").read_text().splitlines()[1:]]
    return [name for _, name in sorted((int(index), name) for index, name in rows)]


def planes(labels: NDArray[np.uint8], drawn_from: int) -> list[NDArray[np.uint8]]:
    """Sagittal, coronal and axial plane through the drawn labels' middle, rows from above or the front down."""
    drawn = np.argwhere(labels >= drawn_from)
    x, y, z = (int(middle) for middle in np.round(drawn.mean(axis=0) if len(drawn) else np.array(labels.shape) / 2))
    return [labels[x].T[::-1], labels[::-1, y].T[::-1], labels[::-1, :, z].T[::-1]]


def draw(folders: list[Path], file: Path) -> None:
    """One row a label map found in the folders."""
    found = [(folder, path) for folder in folders for path in sorted(folder.rglob("*_dseg.nii.gz"))]
    names = named_labels(folders[0])
    colours = ListedColormap(COLOURS[: len(names)])
    figure = Figure(figsize=(7.5, 0.7 + 2.4 * len(found)), layout="constrained")
    for row, axes in zip(found, figure.subplots(len(found), 3, squeeze=False), strict=True):
        image = nib.as_closest_canonical(nib.load(row[1]))  # type: ignore[no-untyped-call]  # nibabel's
        labels = np.asarray(image.dataobj, np.uint8)
        labels = labels[tuple(slice(each.min(), each.max() + 1) for each in np.nonzero(labels))]
        for plane, title, axis in zip(planes(labels, 1 + len(TISSUES)), PLANES, axes, strict=True):
            axis.imshow(plane, cmap=colours, vmin=-0.5, vmax=len(names) - 0.5, interpolation="nearest")
            axis.set_title(title, fontsize=9)
            axis.set_facecolor("black")
            axis.set_xticks([])
            axis.set_yticks([])
    patches = [Patch(color=COLOURS[value], label=name) for value, name in enumerate(names) if value]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8, frameon=False)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def main() -> None:
    """Draw them."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("inferred", type=Path, nargs="+")
    parse.add_argument("--out", type=Path, required=True)
    given = parse.parse_args()
    draw(given.inferred, given.out)


if __name__ == "__main__":
    main()
