"""Secure aggregation on one machine: the sites' identity keys made known to each other, and sites in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from ..common.device import choose_device
from ..common.errors import StorageError, about
from ..common.exchange import SiteTrainer
from ..common.keys import PUBLIC_KEY_NAME, load_public_key
from ..common.masking.messages import KeysWanted, MaskingSite, SumWanted, Wanted
from ..common.masking.peers import Peers, write_peers
from ..common.parallel import side_by_side
from ..common.sayable import sayable_reason
from ..common.site_folder import IDENTITY, PEERS
from .aggregation import SiteFailure
from .rounds import Rounds
from .run_folder import RunFolder
from .secure_exchange import Answer


def introduce(folder: RunFolder, sites: Sequence[str]) -> None:
    """Give every site and the coordinator the identity keys of all; between hospitals people do this (enrolment).

    Raises:
        ConfigError: a site's folder without its key, or the same key twice.
        StorageError: the disk is full, read-only or forbidden.
    """
    keys = {site: load_public_key(folder.site(site) / IDENTITY / PUBLIC_KEY_NAME) for site in sites}
    for path in (folder.peers, *(folder.site(site) / PEERS for site in sites)):
        write_peers(path, Peers(keys))


class InProcessSites:
    """Sites asked side by side in this process; a :class:`SecureExchange`.

    Args:
        rounds: The run.
        open_site: Opens a site's folder, as something that answers questions.
    """

    def __init__(self, rounds: Rounds, open_site: Callable[[Path], SiteTrainer]) -> None:
        self._rounds, self._open_site = rounds, open_site
        self._opened: dict[str, MaskingSite] = {}
        self._workers = 1 if choose_device().cuda else None

    def everyone(self, wanted: KeysWanted | SumWanted, known: Callable[[Answer], bool]) -> Iterable[Answer]:
        """Ask all of the run's sites; here everybody is who it is."""
        return self.each(dict.fromkeys(self._rounds.sites, wanted))

    def each(self, wanted: Mapping[str, Wanted]) -> Iterator[Answer]:
        """Ask these sites."""
        asked = [partial(self._ask, site, question) for site, question in sorted(wanted.items())]
        answers = dict(side_by_side(asked, self._workers))
        yield from (answers[index] for index in sorted(answers))

    def others(self, sites: tuple[str, ...]) -> bool:
        """Whether the run has more sites: one that failed may have been mended."""
        return set(self._rounds.sites) != set(sites)

    def _ask(self, site: str, wanted: Wanted) -> Answer:
        started = time.monotonic()
        try:
            if site not in self._opened:
                opened = self._open_site(self._rounds.folder.site(site))
                if not isinstance(opened, MaskingSite):
                    raise TypeError("a site that cannot mask")
                self._opened[site] = opened
            answer = self._opened[site].answer(wanted)
        except StorageError:  # one disk holds all sites here: no round goes on without it
            with about(f"site '{site}'"):
                raise
        except Exception as error:
            self._opened.pop(site, None)
            return SiteFailure(site, sayable_reason(error))
        late = time.monotonic() - started > self._rounds.study.federation.deadline_s
        return SiteFailure(site, "no reply before the deadline") if late else answer
