"""What a federation costs: memory of the coordinator, seconds of a round beside training, bytes on the wire."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from flower_rounds import flower_rounds
from measure import Row
from still_study import SECURE

SITES, MEGABYTES = 64, 50.0
SMALL_MB, LARGE_MB, ROUNDS = 1.0, 200.0, 5
SECURE_SITES, PLAIN_ROUNDS, SECURE_ROUNDS = 4, 9, 13
DROPS_IN = (8, 10, 12)
"""Rounds in which a site drops out; in the one after each it is back."""


def aggregation_rows() -> list[Row]:
    """``aggregate_64_sites_peak_mb``, of a process of its own, and seconds of such a round."""
    command = [sys.executable, str(Path(__file__).with_name("many_sites.py")), str(SITES), str(MEGABYTES)]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    return [
        Row("aggregate_64_sites_peak_mb", facts["peak_mb"], "MB", None, 600.0),
        Row("aggregate_64_sites_seconds", facts["seconds_per_round"], "s"),
    ]


def flower_rows() -> list[Row]:
    """``round_overhead_seconds_flower`` at two sites, the same with a large generator, ``wire_bytes_over_parameters``.

    Their sites do not train: all of a round's seconds are overhead. A program is loaded, the generator travels and is
    checked, averaged and kept.
    """
    small, large = flower_rounds(SMALL_MB, ROUNDS), flower_rounds(LARGE_MB, ROUNDS)
    return [
        Row("round_overhead_seconds_flower", small.seconds, "s", None, 8.0),
        Row("round_overhead_seconds_flower_200_mb", large.seconds, "s", None, 30.0),
        Row("wire_bytes_over_parameters", large.wire_over_parameters, "ratio", None, 1.05),
    ]


def secure_rows() -> list[Row]:
    """``secure_aggregation_over_plain`` at four sites; the same of rounds in which one drops, and of the rounds after.

    The first round is left out: in it keys are set up once for the study. Where the last site drops, it fails after the
    key exchange; in the round after, keys are asked for anew, since it takes part again.
    """
    plain = flower_rounds(SMALL_MB, PLAIN_ROUNDS, SECURE_SITES)
    secure = flower_rounds(SMALL_MB, SECURE_ROUNDS, SECURE_SITES, SECURE, fails_in=DROPS_IN)
    seconds = dict(enumerate(secure.by_round, start=1))
    undisturbed = median(seconds[n] for n in range(2, DROPS_IN[0]))
    dropped, after = (median(seconds[n + later] for n in DROPS_IN) for later in (0, 1))
    target = 2.0
    return [
        Row("secure_aggregation_over_plain", undisturbed / plain.seconds, "ratio", None, target),
        Row("secure_aggregation_drop_over_plain", dropped / plain.seconds, "ratio", None, target),
        Row("secure_aggregation_after_drop_over_plain", after / plain.seconds, "ratio"),
        Row("plain_round_seconds_flower_4_sites", plain.seconds, "s"),
    ]


def tutorial_rows() -> list[Row]:
    """``tutorial_seconds``: docs/tutorial.md typed in three network namespaces; none where those cannot be made.

    And what a round of such a deployed study takes, with all that a site has between it and the coordinator (TLS,
    proxy, launcher, permission) and with its few training steps; the first, in which nodes start, is left out.

    Raises:
        CalledProcessError: a line of the tutorial failed.
    """
    fakes = Path(__file__).parents[1] / "tests" / "fakes"
    problem = [sys.executable, "-c", "import two_networks; print(two_networks.networks_problem() or '')"]
    if subprocess.run(problem, cwd=fakes, capture_output=True, text=True, check=True).stdout.strip():
        return []
    began = time.perf_counter()
    typed = subprocess.run([sys.executable, str(fakes / "tutorial.py")], capture_output=True, text=True, check=True)
    whole = time.perf_counter() - began
    by_round = json.loads(typed.stdout.splitlines()[-1])["seconds_by_round"]
    return [
        Row("tutorial_seconds", whole, "s", None, 180.0),
        Row("deployed_round_seconds_with_training", median(by_round[1:]), "s"),
    ]
