"""How the label maps of a synthetic cohort were made, and of how many scans: counted from their recorded chains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from ..common.labels.chain import LabelChain

Scans = Annotated[int, Field(ge=1)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SampledMaps(_Record):
    """Label maps that no recipe changed.

    Attributes:
        source: Name of the source that the sampler drew them from.
        scans: How many were painted on them.
    """

    source: str
    scans: Scans


class EditedMaps(_Record):
    """Label maps in whose making a recipe had a part, be it through the donor of a lesion.

    Attributes:
        recipe: Its name.
        citation: Where its ranges come from, as it says.
        scans: How many were painted on them.
    """

    recipe: str
    citation: str
    scans: Scans


class LabelMaking(_Record):
    """The making of a cohort's label maps.

    Attributes:
        scans: In all; a scan counts under each recipe that had a part in it.
        sampled: By source.
        edited: By recipe.
    """

    scans: int = Field(default=0, ge=0)
    sampled: tuple[SampledMaps, ...] = ()
    edited: tuple[EditedMaps, ...] = ()

    @classmethod
    def of(cls, chains: Iterable[LabelChain]) -> Self:
        """Count the chains, one a scan, in any order."""
        counted = list(chains)
        sampled = Counter(chain.source.name for chain in counted if not chain.recipes())
        # By the whole recipe: two of one name are two.
        edited = Counter(recipe for chain in counted for recipe in dict.fromkeys(chain.recipes()))
        rows = [(recipe.name, recipe.citation, number) for recipe, number in edited.items()]
        return cls(
            scans=len(counted),
            sampled=tuple(SampledMaps(source=name, scans=number) for name, number in sorted(sampled.items())),
            edited=tuple(EditedMaps(recipe=name, citation=text, scans=n) for name, text, n in sorted(rows)),
        )

    @property
    def overlaps(self) -> bool:
        """Whether a scan is counted more than once: several recipes had a part in it."""
        return sum(row.scans for row in self.sampled) + sum(row.scans for row in self.edited) > self.scans
