"""A run's curves and previews, drawn by the coordinator from what it has: metrics on fakes, and generators.

Previews show public label maps alone (DESIGN §4.4). Whichever process drives the rounds draws them, so that both
engines do; none of it can stop a round.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..common import curves, previews
from ..common.atomic import write_atomic
from ..common.by_product import by_product
from ..common.errors import PolicyRefused
from ..common.randomness import derived_seed
from ..common.study import Study
from .checkpoints import Checkpoint, RoundRecord
from .run_folder import RunFolder

PREVIEWED = 2
"""Label maps in a preview; of an ensemble every member paints one."""


def prepare_previews(
    folder: RunFolder, study: Study, every: int | None, public: Path | None, say: Callable[[str], None]
) -> None:
    """Say how often a preview is due, and lay down the public label maps that it will show.

    None is, where a study's network maps images to labels: the coordinator has no public image to show it. Nor where no
    weights leave the sites: it has no generator.

    Args:
        folder: The run's.
        study: Names where public label maps come from.
        every: Rounds from one preview to the next; None for no previews.
        public: The public cohort, where the study's label maps come from one.
        say: Told where the run will have no preview though some were asked for.

    Raises:
        ConfigError: the study needs a public cohort and there is none, or has no use for the one given.
        DataError: a public cohort without usable label maps.
        StorageError: the disk is full, read-only or forbidden.
    """
    without = (
        "its network maps images to labels, and the coordinator has no public image to show it"
        if study.network.maps == "images-to-labels"
        else "no weights leave the sites, and the coordinator has no generator"
        if not study.federation.weights_leave
        else None
    )
    if every and without:
        say(
            f"--preview-every: no pictures of this study in OUT/previews, for {without}; each site's folder holds its"
            " own."
        )
    every = None if without else every
    labels = folder.previews / "labels"
    if every and not labels.exists():
        # Here, so that a run without previews does not wait for what draws label maps.
        from ..common.labels.choice import public_cohort
        from ..common.labels.folder import write_label_folder
        from ..common.labels.sampler import make_label_sampler

        sampler = make_label_sampler(study, public_cohort(study, public))
        write_label_folder(labels, sampler, PREVIEWED, study, derived_seed(study.seed, "previews"))
    previews.schedule_previews(folder.previews, every)


def draw_curves(folder: RunFolder, record: RoundRecord) -> None:
    """A round's metrics on fakes, how many sites took part, its time, and how each site's update lies to the mean's."""
    with by_product(folder.journal, "curves", record.round):
        values = {**record.metrics, "sites": float(len(record.sites)), "seconds": record.seconds}
        values |= {f"update norm/{site}": norm for site, norm in record.update_norms.items()}
        values |= {f"cosine to mean/{site}": cosine for site, cosine in record.cosines.items()}
        values |= {
            f"rounds missed/{site}": float(record.missed.get(site, 0)) for site in (*record.sites, *record.missed)
        }
        curves.write_curves(folder.root / curves.FOLDER, [(record.round, values)])


def draw_preview(folder: RunFolder, study: Study, checkpoint: Checkpoint) -> None:
    """The public label maps as the run's generators paint them now, if a preview is due."""
    with by_product(folder.journal, "preview", checkpoint.round):
        file = previews.preview_due(folder.previews, checkpoint.round)
        if file is None:
            return
        from ..common.device import choose_device
        from ..common.gan.generation import generator_with, paint
        from ..common.labels.folder import read_label_folder
        from ..common.montage import Pictured, montage

        maps = read_label_folder(folder.previews / "labels", study.volume_grid())
        if any(sampled.chain.source.kind != "public" for sampled in maps):
            raise PolicyRefused(
                "a preview's label map that is not from a public source",
                expected="the label maps that '--preview-every' laid down",
                remedy="Remove the folder of previews and run the command again.",
            )
        classes = np.searchsorted(study.label_values, np.stack([sampled.labels for sampled in maps])).astype(np.uint8)
        device, seed = choose_device(), derived_seed(study.seed, "preview")
        shown = []
        for site, parameters in checkpoint.generators().items():
            some = classes[:1] if site else classes
            painted = paint(generator_with(parameters, study, device), some, study, seed, device)
            shown += [Pictured(site or f"map {i + 1}", some[i], painted[i]) for i in range(len(some))]
        write_atomic(file, montage(study, shown))
