"""A study's ``[federation]``: what sites share, when a round counts, and how rounds are averaged."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from .errors import ConfigError
from .exchange import SITE_NAME
from .masking.fixed_point import FixedPoint
from .masking.terms import SecureAggregationTable
from .masking.threshold import threshold_problem
from .study_table import Fraction, Positive, StudyTable
from .transport import Transport, value_bytes

Sharing = Literal["weights", "ensemble", "volumes"]
"""``weights``: one generator, averaged every round. ``ensemble``: each site trains its own, in one round, nothing is
averaged, and the coordinator gets a copy. ``volumes``: the same, but no weights leave a site at all."""

KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_LONGEST_S = 30 * 86400.0
"""A month: longer than any round, and a deadline that a typing error cannot put off for ever."""

_SLOWEST_MBIT = 0.01

EQUAL_WEIGHT = 1.0
"""Of every site, where the study declares no weights."""

_SILENT = ("norm_bound", "trimmed_mean", "transport", "slowest_link_mbit", "secure_aggregation")
"""Keys that a study's text does not hold where they say nothing: a study from before them keeps its digest."""


class FederationTable(StudyTable):
    """The table itself."""

    sharing: Sharing = "weights"
    quorum: Positive = 2
    """Fewest sites whose replies make a round."""
    deadline_s: float = Field(default=3600.0, gt=0, le=_LONGEST_S)
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
    norm_bound: float | None = Field(default=None, gt=0)
    """L2 distance from the round's start, over all parameters. A site's update that is longer is scaled back to it,
    so that no site moves the average further than its share of this; left out, none is."""
    trimmed_mean: float | None = Field(default=None, gt=0, lt=0.5)
    """Share of the replies that is left out of the average at each end, parameter by parameter (Yin et al. 2018, arXiv
    1803.01498); left out, none is."""
    transport: Transport = "float32"
    """Precision in which parameters travel, both ways; they are averaged in full."""
    slowest_link_mbit: float = Field(default=10.0, ge=_SLOWEST_MBIT)
    """Megabits a second, either way, of the slowest site's link while every site uses its own; a round's deadline grows
    by what the generator takes over it."""
    secure_aggregation: SecureAggregationTable | None = None
    """Where it is left out, the coordinator sees every site's generator each round; else their weighted sum alone."""

    @property
    def fewest_sites(self) -> int:
        """Without how many sites no round counts: the quorum's, or those that a masked sum needs, if they are more."""
        return max(self.quorum, self.secure_aggregation.threshold if self.secure_aggregation else 0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.weighting == "declared") != bool(self.declared_weights):
            raise ValueError("federation: weighting = 'declared' and declared_weights need each other")
        if self.alone and any((self.declared_weights, self.proximal_weight, self.server_momentum)):
            raise ValueError("federation: declared_weights, proximal_weight and server_momentum are for an average")
        if self.alone and (self.judges_replies or self.transport != "float32"):
            raise ValueError("federation: norm_bound, trimmed_mean and transport = 'float16' are for an average")
        self._check_trimmed()
        if self.alone and self.approval_keys:
            raise ValueError("federation: approval_keys are for an average; a site alone approves its own release")
        self._check_secure_aggregation()
        if len(set(self.approval_keys)) < len(self.approval_keys):
            raise ValueError("federation.approval_keys: one key twice; every site has one of its own")
        return self

    def _check_trimmed(self) -> None:
        if self.trimmed_mean is None:
            return
        if self.declared_weights:
            raise ValueError("federation.trimmed_mean: takes every site alike; it goes with weighting = 'equal' alone")
        if self.trimmed_of(self.quorum) < 1:
            raise ValueError(
                f"federation.trimmed_mean = {self.trimmed_mean:g}: of {self.quorum} replies, the quorum, it would leave"
                " out none; it must be 1/quorum or more"
            )

    @model_serializer(mode="wrap")
    def _without_silent(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        table: dict[str, Any] = serialise(self)
        return {name: v for name, v in table.items() if name not in _SILENT or v != fields[name].default}

    @property
    def judges_replies(self) -> bool:
        """Whether the coordinator treats each site's reply by what is in it, and so has to see it."""
        return self.norm_bound is not None or self.trimmed_mean is not None

    def trimmed_of(self, replies: int) -> int:
        """How many of so many replies are left out at each end."""
        # A hair more: 0.29 of 100 are 29, whatever binary fractions make of it.
        return math.floor((self.trimmed_mean or 0.0) * replies + 1e-9)

    def deadline_with(self, values: int) -> float:
        """Seconds that a round waits for replies: the study's, and what a generator takes to every site and back.

        Args:
            values: Of the generator that travels.
        """
        return self.deadline_s + 2 * self.link_s(values)

    def travels_bytes(self, values: int) -> int:
        """Size of a generator of so many values on its way."""
        return values * value_bytes(self.transport)

    def link_s(self, values: int) -> float:
        """Seconds that a generator of so many values takes, one way, over the link that the study declares."""
        return 8e-6 * self.travels_bytes(values) / self.slowest_link_mbit

    def _check_secure_aggregation(self) -> None:
        terms = self.secure_aggregation
        if terms is None:
            return
        if self.alone:
            raise ValueError("federation.secure_aggregation: is for an average; sites alone have no sum to hide in")
        if self.judges_replies:
            raise ValueError(
                "federation.secure_aggregation: hides each reply, and norm_bound and trimmed_mean judge them one by"
                " one; secure_aggregation.clip has each site bound its own"
            )
        if self.transport != "float32":
            raise ValueError("federation.secure_aggregation: sends whole numbers of 32 bits, not transport = 'float16'")
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
