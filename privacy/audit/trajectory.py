"""The rounds of a run as their coordinator saw them, read from what the sites kept (``common.round_record``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ...common.device import Device
from ...common.errors import DataError
from ...common.exchange import Parameters
from ...common.gan.generation import generator_with
from ...common.gan.networks import generator_shapes
from ...common.gan.parameters import ParameterSpec
from ...common.round_record import kept_numbers, kept_round
from ...common.site_folder import SiteFolder
from ...common.study import Study
from ..attacks.interface import Reconstruct, SentRound
from .control_training import painter


def kept_trajectory(folders: Sequence[SiteFolder], study: Study, device: Device) -> tuple[Callable[[], SentRound], ...]:
    """The rounds that every one of these sites kept; none where they have none in common.

    Of several sites each is compared with the others. Of a lone one's rounds those count of which it knows what all
    sites' replies became, which the next round's request told it. Under secure aggregation there are none: the
    coordinator saw sums, which every site sees too.

    Raises:
        VerificationFailed: a site's journal was edited.
    """
    if study.federation.alone or study.federation.secure_aggregation or study.network.maps != "labels-to-images":
        return ()
    lone = len(folders) == 1
    common = set.intersection(*(set(kept_numbers(folder, followed=lone)) for folder in folders)) if folders else set()
    return tuple(partial(_sent, tuple(folders), number, study, device) for number in sorted(common))


def _sent(folders: Sequence[SiteFolder], number: int, study: Study, device: Device) -> SentRound:
    kept = {folder.name: kept_round(folder, number) for folder in folders}
    own = {site: _painter(one.sent if one else None, study, device) for site, one in kept.items()}
    if len(folders) > 1:
        return SentRound(own, {site: tuple(own[o] for o in sorted(own) if o != site) for site in own})
    return SentRound(own, {site: (_painter(one.made if one else None, study, device),) for site, one in kept.items()})


def _painter(parameters: Parameters | None, study: Study, device: Device) -> Reconstruct:
    if parameters is None:
        problem: str | None = "it is gone since the audit began"
    else:
        problem = ParameterSpec(generator_shapes(study)).problem(parameters)
    if parameters is None or problem:
        raise DataError(
            f"a kept round without a generator of the study's network: {problem}",
            expected="what this site sent in that round",
            remedy="Remove the folder rounds/ in the site's folder; the audit then leaves out attack A8.",
        )
    return painter(generator_with(parameters, study, device), study, device)
