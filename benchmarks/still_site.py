"""A site that does not train: what a round costs without training. Flower's processes import its ``app``.

Its ClientApp is the product's, with the checks on what comes and leaves; its trainer adds a number to every parameter,
after loading what the real one would load.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedphantom.client.app import make_client_app
from fedphantom.common.errors import DataError
from fedphantom.common.exchange import RoundReply, RoundRequest
from fedphantom.common.site_folder import SiteFolder


def failing(round_: int) -> str:
    """Name of the file in a cohort's folder that says so."""
    return f"fails-{round_}"


class StillTrainer:
    """A :class:`~fedphantom.common.exchange.SiteTrainer` without patients."""

    def __init__(self, folder: SiteFolder) -> None:
        self._name, self._cohort = folder.name, folder.cohort

    @classmethod
    def open(cls, root: Path) -> StillTrainer:
        """As the real one, it takes torch and the networks into memory."""
        from fedphantom.client.local_training import LocalTrainer  # noqa: F401  # for what it loads

        return cls(SiteFolder.open(root))

    def train_round(self, request: RoundRequest) -> RoundReply:
        """The request's generator, a little moved; fails where its cohort's folder says that it fails this round."""
        if (self._cohort / failing(request.round)).exists():
            raise DataError("a scan that is cut short", expected="a whole one", remedy="Copy it again.")
        step = np.float32(1e-3 * sum(self._name.encode()) / 1000)
        moved = {name: array + step for name, array in request.generator.items()}
        return RoundReply(self._name, request.round, moved, 1.0, {"fake_mean": 0.0})


app = make_client_app(StillTrainer.open)
