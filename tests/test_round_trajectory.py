"""What a site's rounds betray to its coordinator: what is kept of them, and whether the attack on them sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audited_run import SIZES, audit, make_run
from numpy.typing import NDArray
from tiny_cohorts import tiny_scans, tiny_text, write_tiny_cohort

from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.device import choose_device
from fedphantom.common.exchange import Parameters, RoundReply, RoundRequest
from fedphantom.common.gan.generation import initial_parameters, numpy_parameters
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.round_record import FOLDER, MOST, kept_numbers, kept_round, rounds_kept
from fedphantom.common.site_folder import SiteFolder
from fedphantom.common.study import RolesTable, TrainingTable, parse_study
from fedphantom.privacy.attacks.battery import Battery, Reference
from fedphantom.privacy.attacks.interface import AuditedScans, Images, Labels, Networks, SentRound
from fedphantom.privacy.audit.control_training import painter
from fedphantom.privacy.audit.run import audit_run_folder
from fedphantom.privacy.audit.trajectory import kept_trajectory
from fedphantom.privacy.evidence import BINDING, REQUIRED_ATTACKS, TRAJECTORY
from fedphantom.privacy.policy import TIERS
from fedphantom.privacy.statistics import auc

CPU = choose_device("cpu")
ROUNDS = 3
TEXT = tiny_text(rounds=ROUNDS)
STUDY = parse_study(TEXT)


def scans_at_two_sites(each: int = 24) -> AuditedScans:
    scans = tiny_scans(2 * each)
    number = np.arange(2 * each)
    return AuditedScans(
        scans.volumes,
        scans.classes,
        scans.patients,
        tuple("A" if i < each else "B" for i in number),
        tuple(bool(i % 2) for i in number),
    )


class Knows:
    """Paints the scans that it knows nearly as they are, and everything else from the labels alone."""

    def __init__(self, scans: AuditedScans, rows: NDArray[np.intp], how_well: float = 0.5) -> None:
        self.known = {scans.labels[i].tobytes(): scans.images[i] for i in rows}
        self.how_well = how_well

    def __call__(self, labels: Labels, noise_seed: int) -> Images:
        plain = np.stack([labels / np.float32(2) - 1] * 2, axis=1)
        out = [x + self.how_well * (self.known.get(m.tobytes(), x) - x) for m, x in zip(labels, plain, strict=True)]
        noise = np.random.default_rng(noise_seed).normal(0, 0.01, plain.shape)
        return (np.stack(out) + noise).astype(np.float32)


def battery(scans: AuditedScans) -> Battery:
    strangers = tiny_scans(8, seed=9)
    rest = AuditedScans(strangers.volumes, strangers.classes, strangers.patients, ("A",) * 8, (False,) * 8)
    blank = Networks(Knows(scans, np.arange(0)))
    return Battery.calibrate(scans, Reference(rest, blank), strangers.classes, 1, 3, lambda images: images)


def members(scans: AuditedScans, site: str) -> NDArray[np.intp]:
    return np.flatnonzero([m and s == site for m, s in zip(scans.member, scans.sites, strict=True)])


def a8(scans: AuditedScans, *rounds: SentRound) -> dict[str, float]:
    """Its AUC at each site."""
    tools = battery(scans)
    target = tools.target(Networks(Knows(scans, np.arange(0)), rounds=[lambda sent=sent: sent for sent in rounds]))
    found = tools.scores(target, (TRAJECTORY,))[TRAJECTORY]
    assert found.threat_model == "F"
    return {
        site: auc(found.of([p for p, s in zip(found.patients, found.sites, strict=True) if s == site]).scores())
        for site in "AB"
    }


def test_a_site_that_learns_its_members_by_heart_betrays_them_and_the_other_site_none() -> None:
    scans = scans_at_two_sites()
    own = {"A": Knows(scans, members(scans, "A")), "B": Knows(scans, np.arange(0))}
    found = a8(scans, SentRound(own, {"A": (own["B"],), "B": (own["A"],)}))
    assert found["A"] >= 0.95
    assert found["B"] == pytest.approx(0.5, abs=0.01)  # to the last bit alike


def test_scans_that_every_site_paints_well_are_nobodys_members() -> None:
    scans = scans_at_two_sites()
    easy = Knows(scans, np.flatnonzero(scans.member))
    found = a8(scans, SentRound({"A": easy, "B": easy}, {"A": (easy,), "B": (easy,)}))
    assert found == {"A": 0.5, "B": 0.5}


def test_what_shows_in_one_round_alone_still_shows_in_the_mean_of_all() -> None:
    scans = scans_at_two_sites()
    knows, nothing = Knows(scans, members(scans, "A")), Knows(scans, np.arange(0))
    quiet = SentRound({"A": nothing, "B": nothing}, {"A": (nothing,), "B": (nothing,)})
    loud = SentRound({"A": knows, "B": nothing}, {"A": (nothing,), "B": (knows,)})
    assert a8(scans, quiet, quiet, loud)["A"] >= 0.9


def test_the_more_of_the_site_the_average_holds_the_less_it_shows_beside_it() -> None:
    scans = scans_at_two_sites()
    own = Knows(scans, members(scans, "A"))
    none = Knows(scans, np.arange(0))

    def beside(average: Knows) -> float:
        return a8(scans, SentRound({"A": own, "B": none}, {"A": (average,), "B": (none,)}))["A"]

    assert beside(own) == 0.5
    assert beside(Knows(scans, members(scans, "A"), how_well=0.25)) >= 0.9


def test_without_rounds_it_is_not_run_and_no_release_waits_for_it() -> None:
    scans = scans_at_two_sites()
    tools = battery(scans)
    assert TRAJECTORY not in tools.scores(tools.target(Networks(Knows(scans, np.arange(0)))))
    assert all(TRAJECTORY not in "".join(names) for names in REQUIRED_ATTACKS.values())
    assert all("F" not in models for models in BINDING.values())


# What is kept of a run's rounds, by the site's own code.


def generator_of(seed: int) -> Parameters:
    return numpy_parameters(make_generator(STUDY, seed))


class Sends:
    """A trainer that answers round r with parameters of its own."""

    def __init__(self, site: str, first_seed: int) -> None:
        self.site, self.first = site, first_seed

    def train_round(self, request: RoundRequest) -> RoundReply:
        return RoundReply(self.site, request.round, generator_of(self.first + request.round), 1.0, {})


def run_of(root: Path, sites: dict[str, int]) -> list[SiteFolder]:
    write_tiny_cohort(root / "cohort", 4)
    spec = ParameterSpec.of(initial_parameters(STUDY))
    folders = []
    for name, seed in sites.items():
        create_site_folder(root / name, name, root / "cohort", TEXT, spec)
        folders.append(SiteFolder.open(root / name))
        site = Site(folders[-1], lambda path, name=name, seed=seed: Sends(name, seed))  # type: ignore[misc]  # its own
        for number in range(1, ROUNDS + 1):
            site.train_round(RoundRequest(STUDY.digest(), number, generator_of(1000 + number)))
    return folders


def test_a_site_keeps_what_it_sent_and_what_the_next_round_began_from_for_its_owner_alone(tmp_path: Path) -> None:
    (folder,) = run_of(tmp_path, {"A": 10})
    assert kept_numbers(folder, followed=False) == (1, 2, 3)
    assert kept_numbers(folder, followed=True) == (1, 2)  # nobody told it what the last round led to
    kept = kept_round(folder, 2)
    assert kept is not None
    assert kept.made is not None
    for name, array in generator_of(12).items():
        np.testing.assert_array_equal(kept.sent[name], array)
    for name, array in generator_of(1003).items():
        np.testing.assert_array_equal(kept.made[name], array)
    files = sorted((tmp_path / "A" / FOLDER).iterdir())
    assert [file.stat().st_mode & 0o077 for file in (*files, tmp_path / "A" / FOLDER)] == [0] * (len(files) + 1)


def test_however_long_a_run_few_rounds_are_kept_and_the_first_and_the_last_among_them() -> None:
    for rounds in range(1, 200):
        kept = rounds_kept(rounds)
        assert len(kept) == min(rounds, MOST)
        assert (kept[0], kept[-1]) == (1, rounds)


def test_a_round_that_was_swapped_or_damaged_counts_as_not_kept(tmp_path: Path) -> None:
    (folder,) = run_of(tmp_path, {"A": 10})
    place = tmp_path / "A" / FOLDER
    (place / "sent-00001.safetensors").write_bytes((place / "sent-00002.safetensors").read_bytes())
    assert kept_numbers(folder, followed=False) == (2, 3)
    cut = (place / "sent-00002.safetensors").read_bytes()[:-1]
    (place / "sent-00002.safetensors").write_bytes(cut)
    assert kept_numbers(folder, followed=False) == (3,)
    (place / "made-00003.safetensors").write_bytes((place / "sent-00003.safetensors").read_bytes())
    assert kept_numbers(folder, followed=True) == ()


def test_several_sites_are_compared_with_each_other_and_a_lone_one_with_the_average(tmp_path: Path) -> None:
    folders = run_of(tmp_path, {"A": 10, "B": 20})
    maps = tiny_scans(2).classes

    def paints(seed: int) -> Images:
        network = make_generator(STUDY, seed)
        CPU.place(network)
        return painter(network, STUDY, CPU)(maps, 7)

    both = [load() for load in kept_trajectory(folders, STUDY, CPU)]
    assert len(both) == 3
    np.testing.assert_array_equal(both[1].own["A"](maps, 7), paints(12))
    (other,) = both[1].beside["A"]
    np.testing.assert_array_equal(other(maps, 7), paints(22))
    lone = [load() for load in kept_trajectory(folders[1:], STUDY, CPU)]
    assert len(lone) == 2
    (average,) = lone[1].beside["B"]
    np.testing.assert_array_equal(average(maps, 7), paints(1003))
    alone = STUDY.model_copy(update={"federation": STUDY.federation.model_copy(update={"sharing": "ensemble"})})
    assert kept_trajectory(folders, alone, CPU) == ()


def test_a_site_where_sites_train_alone_keeps_no_rounds(tmp_path: Path) -> None:
    text = tiny_text(rounds=1) + '[federation]\nsharing = "ensemble"\n'
    study = parse_study(text)
    write_tiny_cohort(tmp_path / "cohort", 4)
    create_site_folder(tmp_path / "A", "A", tmp_path / "cohort", text, ParameterSpec.of(initial_parameters(study)))
    site = Site(SiteFolder.open(tmp_path / "A"), lambda path: Sends("A", 10))
    site.train_round(RoundRequest(study.digest(), 1, generator_of(1)))
    assert not (tmp_path / "A" / FOLDER).exists()


@pytest.mark.slow
@pytest.mark.long
def test_a_run_whose_sites_learn_their_members_by_heart_shows_it_to_the_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This attack asks no reference and has no positive control: those of the other attacks are kept short.
    monkeypatch.setattr("fedphantom.privacy.audit.controls.EPOCHS", 1)
    roles = RolesTable(test=0.0, reference=0.0, control=0.1, audit=0.85, validation=0.0)
    root = make_run(tmp_path, 20, roles, TrainingTable(rounds=2, local_steps=300))
    content = json.loads(json.dumps(audit(root, root)))
    (row,) = [row for row in content["attacks"] if row["id"] == TRAJECTORY]
    assert row["auc"] >= 0.8
    assert (row["threat_model"], row["binding"]) == ("F", False)
    assert {figure["site"] for figure in content["by_site"] if figure["attack"] == TRAJECTORY} == {"site-a", "site-b"}
    lone = run_of_one_site(root)
    (row,) = [row for row in lone["attacks"] if row["id"] == TRAJECTORY]
    assert row["auc"] > 0.5  # by the first round alone, beside an average that is half its own


def run_of_one_site(root: Path) -> dict[str, Any]:
    return audit_run_folder(
        root / "run/sites/site-a",
        root / "synthetic",
        read_cohort(root / "public"),
        root / "audit-a",
        SIZES,
        TIERS["controlled"],
        generator_file=root / "run/generator.safetensors",
        device="cpu",
    )
