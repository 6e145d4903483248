"""What a site's training keeps between rounds, and how it goes on where that is damaged.

state/committed.safetensors   after the last round that was trained
state/previous.safetensors    what that round began from; none where it was the site's first
state/partial.safetensors     within a round that was cut off

Damage is never passed over in silence: the site's journal tells it, and what training went on from instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from ..common.atomic import write_atomic
from ..common.errors import DataError, PolicyRefused
from ..common.gan.training_state import TrainingState, load_state, save_state
from ..common.journal import Fact, Journal, read_journal
from ..common.site_folder import MASKED_LEFT, REPLY_LEFT, SiteFolder

STATE_DAMAGED = "state-damaged"
"""Journal event: which file, the round that was asked for, and the round whose state stands in (0: fresh networks)."""


class KeptState:
    """A site's training state on its disk.

    Args:
        folder: The site's folder.
        fresh: Makes the networks and optimisers that a site begins with.
        say: Told, in words, of damage.
    """

    def __init__(
        self,
        folder: SiteFolder,
        fresh: Callable[[], TrainingState],
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:
        self._folder, self._fresh, self._say = folder, fresh, say
        self._committed = folder.committed
        self._previous = folder.state / "previous.safetensors"
        self._partial = folder.state / "partial.safetensors"
        self._whole = False  # whether the committed state was read and found whole
        folder.state.mkdir(parents=True, exist_ok=True)

    def before(self, round_: int, incoming: str) -> tuple[TrainingState, bool]:
        """The state that a round goes on from, and whether it is the round's result already.

        Where the committed state is damaged or missing, the one that its round began from stands in, or else fresh
        networks: the site is then like one that missed a round. It is told. A round that was answered is answered
        again only if that gives the same answer.

        Args:
            round_: Asked for.
            incoming: Digest of the generator to start from.

        Raises:
            PolicyRefused: the round was answered from another generator, or its answer cannot be repeated.
        """
        self._whole = False
        state, damage = self._fresh(), "damaged"
        if not self._committed.exists():
            if not self._answers():
                return state, False
            damage = "missing"
        else:
            try:
                facts = load_state(self._committed, state)
            except DataError:
                pass
            else:
                self._whole = True
                done = int(str(facts["round"]))
                if done > round_ or (done == round_ and facts["incoming"] != incoming):
                    raise PolicyRefused(
                        f"the coordinator asks for round {round_} again from another generator;"
                        f" round {done} is done here",
                        expected="the next round, or this one unchanged",
                        remedy="The coordinator must go on from its last checkpoint, or start a new run.",
                    )
                return state, done == round_
        return self._stand_in(round_, incoming, damage), False

    def within(self, round_: int, incoming: str) -> tuple[TrainingState, int] | None:
        """State and first step of this round where it was cut off; None where it was not begun."""
        if not self._partial.exists():
            return None
        state = self._fresh()
        try:
            facts = load_state(self._partial, state)
        except DataError:  # it costs its steps, not the round
            Journal(self._folder.journal).append(
                STATE_DAMAGED, file=self._partial.name, found="damaged", round=round_, goes_on_after_round=round_ - 1
            )
            self._say(
                f"site '{self._folder.name}': the training state state/{self._partial.name} is damaged; round {round_}"
                " begins anew. Check the site's disk; the journal keeps note of it."
            )
            self._partial.unlink()  # told once
            return None
        return (state, int(str(facts["first"]))) if (facts["round"], facts["incoming"]) == (round_, incoming) else None

    def save_within(self, state: TrainingState, facts: Mapping[str, Fact]) -> None:
        """Keep the state in the middle of a round; ``facts`` name the round, its incoming digest and first step."""
        save_state(self._partial, state, facts)

    def commit(self, state: TrainingState, facts: Mapping[str, Fact]) -> None:
        """Keep the state after a round, and the one before as long as it is known to be whole."""
        if self._whole:
            write_atomic(self._previous, self._committed.read_bytes())
        save_state(self._committed, state, facts)
        self._partial.unlink(missing_ok=True)

    def _stand_in(self, round_: int, incoming: str, damage: str) -> TrainingState:
        state, after = self._fresh(), 0
        if self._previous.exists():
            try:
                after = int(str(load_state(self._previous, state)["round"]))
            except DataError:
                state = self._fresh()
        answers = self._answers()
        last = answers[-1] if answers else {}
        if round_ <= int(str(last.get("round", 0))):
            begun_fresh = not self._previous.exists() and len({str(answer["round"]) for answer in answers}) == 1
            same = (last["round"], last.get("incoming")) == (round_, incoming)
            if not same or not (after or begun_fresh):
                raise PolicyRefused(
                    f"round {round_} was answered here, and the state that would answer it the same is {damage}",
                    expected="the round after the last that was answered",
                    remedy=f"Restore state/{self._committed.name} from a backup, or let the coordinator go on with the"
                    " next round: this site takes part in it again.",
                )
        Journal(self._folder.journal).append(
            STATE_DAMAGED, file=self._committed.name, found=damage, round=round_, goes_on_after_round=after
        )
        stands_in = (
            f"the state after round {after} stands in for it"
            if after
            else "no earlier one is whole, so a fresh discriminator trains with the coordinator's generator"
        )
        self._say(
            f"site '{self._folder.name}': the training state state/{self._committed.name} is {damage}; {stands_in}."
            " Check the site's disk; the journal keeps note of it."
        )
        return state

    def _answers(self) -> list[Mapping[str, Fact]]:
        """What training gave that left, by round: bare or, with secure aggregation, under masks."""
        if not self._folder.journal.exists():
            return []
        return [
            entry.facts
            for entry in read_journal(self._folder.journal)
            if entry.event == REPLY_LEFT or (entry.event == MASKED_LEFT and entry.facts.get("what") == "input")
        ]
