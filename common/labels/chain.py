"""Where a label map comes from, step by step (DESIGN §4.5).

Every synthetic volume's sidecar carries its chain. ``release pack`` follows it to the source and
refuses unless that source is public and declared in the run's ``public-labels.json``; a label map
without a chain counts as private.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..one_line import ONE_LINE
from .recipe import Recipe

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

CHAIN_KEY = "LabelChain"
"""Where the sidecar of a label map, or of what was painted on it, holds the chain."""

UNSTATED = "not stated by the cohort"
"""Stands where a licence would, for maps whose owner states none."""

_NO_LICENCE = {"", UNSTATED, "see nilearn", "n/a", "na", "none", "unknown", "unspecified", "tbd", "todo"}
"""``see nilearn``: a study's default, which speaks of the atlas alone."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelSource(_Record):
    """The first link: an atlas or one openly licensed label map, or a private one.

    Attributes:
        kind: ``public``, or ``private`` for anything not declared public.
        name: The source's public name; for a private one an HMAC with the site's secret.
        licence: SPDX identifier or the licence's own words; :data:`UNSTATED` where the owner states none.
        citation: Whom to cite; empty where the owner does not say.
        sha256: :func:`label_digest` of the source's voxels.
    """

    kind: Literal["public", "private"]
    name: Annotated[str, ONE_LINE]
    licence: Annotated[str, ONE_LINE]
    citation: Annotated[str, ONE_LINE] = ""
    sha256: Sha256


class LabelStep(_Record):
    """One deterministic change: its name, its drawn parameters and the seed they were drawn with."""

    name: Literal["affine", "diffeomorphism", "lesion"]
    parameters: dict[str, Any]
    seed: int


class EditStep(_Record):
    """One variant that a recipe gave: the recipe and the seed, which make it again, and what was drawn.

    Attributes:
        recipe: In full.
        seed: Of every range of the recipe.
        parameters: ``operations`` in order as they were drawn, and ``beneath``: where the anatomy under lesions
            comes from.
        donor: Where a transplanted lesion comes from.
    """

    name: Literal["edit"]
    recipe: Recipe
    seed: int
    parameters: dict[str, Any]
    donor: LabelChain | None = None


class LabelChain(_Record):
    """A label map's way from its source, in order: the public sampler's steps, if any, then edits."""

    source: LabelSource
    steps: tuple[Annotated[LabelStep | EditStep, Field(discriminator="name")], ...] = ()

    def edits(self) -> tuple[EditStep, ...]:
        """The edits, in order."""
        return tuple(step for step in self.steps if isinstance(step, EditStep))

    def chains(self) -> tuple[LabelChain, ...]:
        """This chain and those of all donors, and theirs: a map is as private as the most private of them."""
        return (self, *(chain for edit in self.edits() if edit.donor for chain in edit.donor.chains()))

    def sources(self) -> tuple[LabelSource, ...]:
        """Every source that something of the map comes from, this chain's first."""
        return tuple(chain.source for chain in self.chains())

    def recipes(self) -> tuple[Recipe, ...]:
        """Every recipe on the way, donors' among them."""
        return tuple(edit.recipe for chain in self.chains() for edit in chain.edits())

    @property
    def is_public(self) -> bool:
        """Whether all that the map comes from says that it is public."""
        return all(source.kind == "public" for source in self.sources())


class PublicSources(_Record):
    """``public-labels.json``: the sources a run declares public, and the recipes that maps from them were edited by."""

    sources: tuple[LabelSource, ...]
    recipes: tuple[Recipe, ...] = ()

    def merged(self, other: PublicSources) -> PublicSources:
        """Both, each source and recipe once, in order."""
        sources = {source.sha256: source for source in (*self.sources, *other.sources)}
        recipes = dict.fromkeys((*self.recipes, *other.recipes))
        return PublicSources(sources=tuple(sources.values()), recipes=tuple(recipes))


def states_licence(licence: str) -> bool:
    """Whether this is a licence, and not a word for having none."""
    return licence.strip().casefold() not in _NO_LICENCE


def label_digest(labels: NDArray[np.uint8]) -> str:
    """SHA-256 over shape and voxels, axes (X, Y, Z) in C order; independent of file and header."""
    digest = hashlib.sha256(repr(labels.shape).encode())
    digest.update(np.ascontiguousarray(labels, dtype=np.uint8).tobytes())
    return digest.hexdigest()
