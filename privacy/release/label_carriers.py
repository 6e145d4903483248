"""How many training patients carry each structure: a rare one would speak of the few who have it.

Counted where the scans lie and told nobody: a refusal says below which threshold a structure is, and a release from
which number on all are.

Source: PRIVACY §5, "Suppress or merge labels/pathologies carried by <10 patients; <3 blocks public release".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from ...common.cohorts.preparation import PreparedScans, joined
from ...common.errors import DataError, PolicyRefused
from ...common.site_folder import site_folders, site_material
from ...common.study import Study
from ..policy import FEWEST_FOR_PUBLIC, SitePolicy, Tier


@dataclass(frozen=True)
class LabelCarriers:
    """Training patients with a voxel of each structure, as the networks saw it on the study's grid.

    Attributes:
        patients: Structure to their number; stays where it was counted.
    """

    patients: Mapping[str, int]

    @classmethod
    def of(cls, scans: PreparedScans, study: Study) -> Self:
        """Count these scans' patients, each once however many scans show the structure."""
        carriers: dict[int, set[str]] = {value: set() for value in study.label_values if value}
        for patient, classes in zip(scans.patients, scans.classes, strict=True):
            for position in np.unique(classes):
                if value := study.label_values[position]:
                    carriers[value].add(patient)
        names = {value: name for name, value in study.labels.items()}
        return cls({names[value]: len(found) for value, found in carriers.items()})

    @classmethod
    def told_by(cls, sites: Iterable[Collection[str]], study: Study, each: int) -> Self:
        """What sites say that tell no numbers: which structures so many of their patients, or more, carry.

        A structure that no site says it of may be carried by one patient, and counts as that.
        """
        names = list(sites)
        held = {name: each * sum(name in site for site in names) for name, value in study.labels.items() if value}
        return cls({name: number or 1 for name, number in held.items()})

    def rarer_than(self, fewest: int) -> tuple[str, ...]:
        """Structures that somebody carries, but fewer than so many, by label value.

        One that nobody carries describes nobody.
        """
        return tuple(name for name, number in self.patients.items() if 0 < number < fewest)


def count_label_carriers(run: Path, study: Study) -> LabelCarriers:
    """Count over the training patients of every site of a run's folder, or of the one site whose folder it is.

    Raises:
        DataError: no site's folder, or one whose roles were never drawn.
        FedPhantomError: as :func:`~fedphantom.common.site_folder.site_material`.
    """
    folders = site_folders(run)
    if not all(folder.coins.exists() for folder in folders):  # asked before anything would draw them
        raise DataError(
            "a site's folder without its coin record",
            expected="the folders as training left them: the record says which patients trained",
            remedy="Pack where they lie.",
        )
    sites = [site_material(folder, study) for folder in folders]
    trained = [site.scans_of(site.coins.training_patients()) for site in sites]
    return LabelCarriers.of(joined(trained).named_by_site(), study)


def fewest_carriers(policies: Sequence[SitePolicy], tier: Tier) -> int | None:
    """Fewest training patients who may carry a structure of a release; None where nothing bounds it.

    The strictest of the policies; for publication never under :data:`FEWEST_FOR_PUBLIC`, whatever they say.
    """
    asked = [policy.thresholds.label_carriers_min for policy in policies]
    asked.append(FEWEST_FOR_PUBLIC if tier == "public" else None)
    return max((number for number in asked if number is not None), default=None)


def refuse_rare_labels(carriers: LabelCarriers | None, policies: Sequence[SitePolicy], tier: Tier) -> int | None:
    """Find that no structure is rarer than the policies allow; returns the bound that was kept.

    Args:
        carriers: None where nobody counted.
        policies: The sites'.
        tier: Whom the release is for.

    Raises:
        PolicyRefused: one is, or nobody counted. Names structure and threshold, and no number of patients.
    """
    fewest = fewest_carriers(policies, tier)
    if fewest is None:
        return None
    if carriers is None:
        raise PolicyRefused(
            "a release for which nobody counted how many training patients carry each structure",
            expected=f"{fewest} or more for each (PRIVACY §5)",
            remedy="Pack with 'fedphantom release pack' where the sites' folders and cohorts lie.",
        )
    if rare := carriers.rarer_than(fewest):
        merge = (
            f"Merge it: begin a study without '{rare[0]}' among its labels, whose [remapping] lists its values under"
            " another label, and train anew."
        )
        override = (
            f" Otherwise a site's policy may say why fewer are enough, under [override.label_carriers_min]"
            f"{f', down to {FEWEST_FOR_PUBLIC} for publication' if tier == 'public' else ''}."
        )
        raise PolicyRefused(
            f"structures that fewer than {fewest} of the training patients carry: {', '.join(rare)}",
            expected=f"{fewest} or more patients for each structure, or none, by the policies given (PRIVACY §5)",
            remedy=merge + ("" if tier == "public" and fewest == FEWEST_FOR_PUBLIC else override),
        )
    return fewest
