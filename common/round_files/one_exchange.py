"""Which studies can be run by files: those whose round is one request and one reply."""

from __future__ import annotations

from ..errors import ConfigError
from ..study import Study


def refuse_several_exchanges(study: Study) -> None:
    """Raise ConfigError for a study with secure aggregation: its sites exchange keys and shares within a round."""
    # By name: a release of FedPhantom without secure aggregation has no such key, and no study with it.
    if getattr(study.federation, "secure_aggregation", None) is not None:
        raise ConfigError(
            "a study with secure aggregation, whose rounds are several exchanges each",
            expected="a study without federation.secure_aggregation, whose round is one request and one reply",
            remedy="Run it over the network ('fedphantom server start'), or leave secure aggregation out of the study"
            " and have every site approve that the coordinator sees its generator.",
        )
