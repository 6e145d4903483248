"""``labels edit``: a recipe applied to every label map of a folder or cohort, n variants each.

label-00001_dseg.nii.gz   an edited map on the study's grid
label-00001_dseg.json     {"LabelChain": {...}}: source, recipe, seed and what was drawn
recipe.toml               the recipe, with every default filled in
public-labels.json        public sources and recipe; only where a map comes from public ones alone
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_folder, for_owner_alone, write_atomic
from ..counted import counted
from ..errors import ConfigError, DataError, about
from ..labels.chain import LabelChain, PublicSources
from ..labels.choice import PublicMaps
from ..labels.diversity import Diversity, ThinnedMaps, diversity
from ..labels.folder import write_label_names, write_numbered, write_sources
from ..labels.private_name import site_secret
from ..labels.recipe import Recipe
from ..labels.sampler import SampledLabels
from ..study import Study
from .inputs import EditInput, InputFiles, read_inputs
from .layered import layered
from .part_order import refuse_misordered
from .plausibility import REASONS, Implausible, Reason
from .terms import edit_terms
from .variant import draw_variant

AS_GIVEN = "as given"
"""Stands for the edit's name where a map is refused before any."""


@dataclass(frozen=True)
class EditReport:
    """What an edit gave.

    Attributes:
        recipe: Its name.
        inputs: Label maps read.
        written: Variants written.
        private: Those among them that come from a private map or donor.
        given_up: Variants of which no draw was plausible.
        rejected: (edit's name, reason) to the number of draws rejected for it; of a map that is refused as it is given
            (:data:`AS_GIVEN`), one for each of its variants.
        measured: Of each of these, what was measured in the first such draw, and the limit.
        diversity: Of what was written.
    """

    recipe: str
    inputs: int
    written: int
    private: int
    given_up: int
    rejected: dict[tuple[str, Reason], int]
    measured: dict[tuple[str, Reason], str]
    diversity: Diversity

    @property
    def warning(self) -> str | None:
        """That there are fewer maps than asked for, and mostly why; None where there are as many.

        No failure (exit code 0, DESIGN §5): what is written is whole, and most recipes lose a variant now and then.
        """
        if not self.given_up:
            return None
        asked = self.written + self.given_up
        return (
            f"{self.given_up} of {counted(asked, 'variant')} given up, because no draw was plausible; most often"
            f" {rejection_texts(self.rejected, self.measured)[0]}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "recipe": self.recipe,
            "inputs": self.inputs,
            "written": self.written,
            "private": self.private,
            "given_up": self.given_up,
            "rejected": [
                {"edit": edit, "reason": reason, "draws": count, "first": self.measured[edit, reason]}
                for (edit, reason), count in self.rejected.items()
            ],
            "diversity": self.diversity.to_json(),
        }

    def to_text(self) -> str:
        """A few lines for a person."""
        lines = [f"{counted(self.written, 'label map')} from {self.inputs}, by the recipe '{self.recipe}'"]
        lines += [f"rejected draws: {text}" for text in rejection_texts(self.rejected, self.measured)]
        if self.private:
            are, they, them = ("is", "it stays", "it") if self.private == 1 else ("are", "they stay", "them")
            lines.append(
                f"{self.private} of them {are} private: {they} inside the site, and nothing painted from {them}"
                " is released"
            )
        return "\n".join([*lines, self.diversity.to_text()])


def rejection_texts(
    rejected: Mapping[tuple[str, Reason], int], measured: Mapping[tuple[str, Reason], str]
) -> list[str]:
    """Each reason in words with its count and what was measured in the first such draw, the most frequent first."""
    order = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    return [
        f"{count} × {edit}: {REASONS[reason]} ({'first: ' if count > 1 else ''}{measured[edit, reason]})"
        for (edit, reason), count in order
    ]


def edit_label_maps(
    source: Path,
    out: Path,
    recipe: Recipe,
    study: Study,
    *,
    variants: int,
    seed: int,
    public: Path | None = None,
    donors: Path | None = None,
    secret: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EditReport:
    """Write ``variants`` edited maps of every map of ``source``.

    Args:
        source: Folder of label maps, or cohort.
        out: A new or empty folder; it appears when it is whole.
        recipe: What to do.
        study: Names labels, grid and the sampler's ranges.
        variants: Of each map, ≥ 1.
        seed: ≥ 0; variant k of map i depends on (seed, i, k) alone.
        public: The public cohort, where public maps come from one.
        donors: Folder or cohort of maps whose lesions a recipe transplants.
        secret: The site's secret, for naming private maps; made where it does not exist.
        progress: Called with (maps done, maps in all).

    Raises:
        ConfigError: a recipe that does not fit the study; a secret, a public cohort or donors missing.
        DataError: no readable map, or no plausible variant of any: with the reasons and their counts.
        VerificationFailed: a map that its chain does not give.
        StorageError: ``out`` holds something already, or the disk is full, read-only or forbidden.
    """
    terms = edit_terms(recipe, study)
    sources = PublicMaps(study, public)
    get_secret = partial(_secret, secret) if secret else None
    pool = _donors(recipe, donors, study, lambda files: list(read_inputs(files, study, sources, get_secret)))
    choose = (lambda rng: pool[int(rng.integers(len(pool)))]) if pool else None
    declared, thinned, rejected = PublicSources(sources=()), ThinnedMaps(), Counter[tuple[str, Reason]]()
    measured: dict[tuple[str, Reason], str] = {}
    with about("IN"):
        inputs = InputFiles.of(source, study)
    private = 0
    with atomic_folder(out) as folder:
        for index, given in enumerate(read_inputs(inputs, study, sources, get_secret)):
            try:
                refuse_misordered(given.labels, terms)
            except Implausible as disorder:
                rejected[AS_GIVEN, disorder.reason] += variants
                measured.setdefault((AS_GIVEN, disorder.reason), disorder.measured)
                progress(index + 1, len(inputs.files))
                continue
            state = layered(given.labels, terms, given.anatomy)
            for variant in range(variants):
                made, refused = draw_variant(state, recipe, terms, (seed, index, variant), choose)
                for one in refused:
                    rejected[one.operation, one.reason] += 1
                    measured.setdefault((one.operation, one.reason), one.measured)
                if made is None:
                    continue
                edited, step = made
                chain = LabelChain(source=given.chain.source, steps=(*given.chain.steps, step))
                thinned.add(edited.labels)
                write_numbered(folder, len(thinned), SampledLabels(edited.labels, chain), study.volume_grid())
                if chain.is_public:
                    declared = declared.merged(PublicSources(sources=chain.sources(), recipes=chain.recipes()))
                else:
                    for_owner_alone(folder)
                    private += 1
            progress(index + 1, len(inputs.files))
        if not len(thinned):
            raise _nothing(rejected, measured)
        write_atomic(folder / "recipe.toml", recipe.to_toml().encode(), flush=False)
        if declared.sources:
            write_sources(folder, declared)
        write_label_names(folder, study)
    return EditReport(
        recipe=recipe.name,
        inputs=len(inputs.files),
        written=len(thinned),
        private=private,
        given_up=len(inputs.files) * variants - len(thinned),
        rejected=dict(rejected.most_common()),
        measured=measured,
        diversity=diversity(thinned, study.labels),
    )


def _secret(file: Path) -> bytes:
    with about("--site-secret"):
        return site_secret(file)


def _donors(
    recipe: Recipe, path: Path | None, study: Study, read: Callable[[InputFiles], Sequence[EditInput]]
) -> list[tuple[LabelChain, NDArray[np.uint8]]]:
    if recipe.needs_donor == (path is None):
        raise ConfigError(
            "a recipe that transplants lesions, without donors" if path is None else "donors for a recipe without use",
            expected="--donors exactly where a recipe transplants",
            remedy="Name label maps with lesions with --donors, or leave it out.",
        )
    with about("--donors"):
        return [(given.chain, given.labels) for given in read(InputFiles.of(path, study))] if path else []


def _nothing(rejected: Mapping[tuple[str, Reason], int], measured: Mapping[tuple[str, Reason], str]) -> DataError:
    return DataError(
        f"a recipe that gives no plausible label map: {'; '.join(rejection_texts(rejected, measured))}",
        expected="edits within the recipe's [labels] and [plausible]",
        remedy="Widen or mend the recipe's ranges; docs/recipes holds examples."
        if any(edit != AS_GIVEN for edit, _ in rejected)
        else "Look at what the values mean: in the study's [labels] and [remapping], in the file that was given to"
        " 'labels infer' with --remapping, and in the order of the recipe's [labels] lesion.",
    )
