"""A study's ``[federation]``: what sites share, when a round counts, and how rounds are averaged."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from .errors import ConfigError
from .exchange import SITE_NAME
from .masking.fixed_point import FixedPoint
from .masking.terms import SecureAggregationTable
from .masking.threshold import threshold_problem
from .study_table import Fraction, Positive, StudyTable, without_nothing

Sharing = Literal["weights", "ensemble", "volumes"]
"""``weights``: one generator, averaged every round. ``ensemble``: each site trains its own, in one round, nothing is
averaged, and the coordinator gets a copy. ``volumes``: the same, but no weights leave a site at all."""

KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

EQUAL_WEIGHT = 1.0
"""Of every site, where the study declares no weights."""


class FederationTable(StudyTable):
    """The table itself."""

    sharing: Sharing = "weights"
    quorum: Positive = 2
    """Fewest sites whose replies make a round."""
    deadline_s: float = Field(default=3600.0, gt=0)
    """Seconds after which a round goes on without the sites that have not answered."""
    ema_decay: float = Field(default=0.5, ge=0, lt=1)
    """Server-side EMA of the aggregates, per round; its last state is the released generator."""
    weighting: Literal["equal", "declared"] = "equal"
    """Of the sites in the average."""
    declared_weights: dict[Annotated[str, Field(pattern=f"^{SITE_NAME}$")], Annotated[float, Field(gt=0, le=1e9)]] = (
        Field(default_factory=dict)
    )
    """For ``declared``: site name to a weight that all may know. Never the number of its patients."""
    approval_keys: tuple[KeyId, ...] = ()
    """Whose approval a release of the average needs: the key of one compliance officer of every site, by the name that
    ``release key`` prints. Every site reads them before it trains, and the generator carries the study's digest."""
    proximal_weight: float = Field(default=0.0, ge=0)
    """FedProx's μ: how strongly a site's generator is held to the round's. 0 is FedAvg."""
    server_momentum: Fraction = 0.0
    """FedAvgM's β: the share of its last move that the server makes again. 0 is FedAvg."""
    secure_aggregation: SecureAggregationTable | None = None
    """Where it is left out, the coordinator sees every site's generator each round; else their weighted sum alone."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_nothing(serialise(self))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.weighting == "declared") != bool(self.declared_weights):
            raise ValueError("federation: weighting = 'declared' and declared_weights need each other")
        if self.alone and any((self.declared_weights, self.proximal_weight, self.server_momentum)):
            raise ValueError("federation: declared_weights, proximal_weight and server_momentum are for an average")
        if self.alone and self.approval_keys:
            raise ValueError("federation: approval_keys are for an average; a site alone approves its own release")
        self._check_secure_aggregation()
        if len(set(self.approval_keys)) < len(self.approval_keys):
            raise ValueError("federation.approval_keys: one key twice; every site has one of its own")
        return self

    def _check_secure_aggregation(self) -> None:
        terms = self.secure_aggregation
        if terms is None:
            return
        if self.alone:
            raise ValueError("federation.secure_aggregation: is for an average; sites alone have no sum to hide in")
        if any(weight != int(weight) for weight in self.declared_weights.values()):
            raise ValueError("federation.secure_aggregation: declared_weights must then be whole numbers")

    def sum_problem(self, sites: Collection[str]) -> str | None:
        """Why the study's sums cannot be over these sites, as one phrase; None if they can, or there are none."""
        terms = self.secure_aggregation
        if terms is None:
            return None
        weights = [self.weight_of(site) for site in sites]
        found = threshold_problem(len(sites), terms.threshold)
        return found or FixedPoint(terms.clip, terms.bits).weight_problem(weights)

    @property
    def alone(self) -> bool:
        """Whether each site trains a generator of its own: it keeps it, and stands alone behind what it releases."""
        return self.sharing != "weights"

    @property
    def weights_leave(self) -> bool:
        """Whether the coordinator gets generator weights of a site."""
        return self.sharing != "volumes"

    def weight_of(self, site: str) -> float:
        """The site's weight in the average.

        Raises:
            ConfigError: the study declares weights, but none for this site.
        """
        if self.weighting == "equal":
            return EQUAL_WEIGHT
        if site not in self.declared_weights:
            raise ConfigError(
                f"no declared weight for site '{site}'",
                expected="one for every site under federation.declared_weights",
                remedy="Add it to the study, or set federation.weighting = 'equal'.",
            )
        return self.declared_weights[site]
