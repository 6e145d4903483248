"""A site's training state that is damaged: never believed, never passed over in silence, never the end of the site."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_cohorts import tiny_study, tiny_text, write_tiny_cohort
from trained_run import trained_run

from fedphantom.client.local_training import LocalTrainer
from fedphantom.client.site_round import Site
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.errors import PolicyRefused
from fedphantom.common.exchange import Parameters, RoundReply, RoundRequest
from fedphantom.common.gan.generation import initial_parameters, numpy_parameters
from fedphantom.common.gan.networks import make_generator
from fedphantom.common.gan.parameters import ParameterSpec, parameters_digest
from fedphantom.common.journal import read_journal
from fedphantom.common.site_folder import SiteFolder

TEXT, STUDY = tiny_text(rounds=4, local_steps=2), tiny_study(rounds=4, local_steps=2)
COMMITTED, PREVIOUS = "committed.safetensors", "previous.safetensors"


def generator(seed: int = 0) -> Parameters:
    return numpy_parameters(make_generator(STUDY, seed))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cohort(tmp_path_factory.mktemp("data") / "cohort", 5)


@pytest.fixture
def site(tmp_path: Path, cohort: Path) -> SiteFolder:
    return create_site_folder(tmp_path / "site", "site-a", cohort, TEXT, ParameterSpec.of(generator()))


def ask(site: SiteFolder, round_: int, seed: int | None = None) -> RoundReply:
    """A round of a site opened anew, each from its own generator unless told otherwise."""
    request = RoundRequest(STUDY.digest(), round_, generator(round_ if seed is None else seed))
    return Site(SiteFolder.open(site.root), LocalTrainer.open).train_round(request)


def digest(reply: RoundReply) -> str:
    return parameters_digest(reply.generator)


def damage(site: SiteFolder, name: str = COMMITTED) -> None:
    file = site.state / name
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))


def told(site: SiteFolder) -> list[dict[str, object]]:
    return [dict(entry.facts) for entry in read_journal(site.journal) if entry.event == "state-damaged"]


def test_the_state_before_stands_in_for_a_damaged_one_and_the_site_goes_on(
    site: SiteFolder, tmp_path: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(site, 1)
    ask(site, 2)
    damage(site)
    reply = ask(site, 3)
    assert told(site) == [{"file": COMMITTED, "found": "damaged", "round": 3, "goes_on_after_round": 1}]
    said = capsys.readouterr().err
    assert "site 'site-a': the training state state/committed.safetensors is damaged" in said
    assert "after round 1 stands in" in said
    assert "Check the site's disk" in said
    # As a site that missed round 2 trains it, to the bit.
    other = create_site_folder(tmp_path / "other", "site-a", cohort, TEXT, ParameterSpec.of(generator()))
    ask(other, 1)
    assert digest(ask(other, 3)) == digest(reply)
    assert told(other) == []
    ask(site, 4)  # and it is whole again
    assert len(told(site)) == 1


def test_without_an_earlier_state_a_fresh_discriminator_trains_and_the_journal_says_so(
    site: SiteFolder, tmp_path: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(site, 1)
    ask(site, 2)
    damage(site)
    damage(site, PREVIOUS)
    reply = ask(site, 3)
    assert told(site) == [{"file": COMMITTED, "found": "damaged", "round": 3, "goes_on_after_round": 0}]
    assert "a fresh discriminator trains with the coordinator's generator" in capsys.readouterr().err
    other = create_site_folder(tmp_path / "other", "site-a", cohort, TEXT, ParameterSpec.of(generator()))
    assert digest(ask(other, 3)) == digest(reply)


def test_a_damaged_state_within_a_round_costs_its_steps_and_is_told(
    site: SiteFolder, tmp_path: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(site, 1)
    (site.state / "partial.safetensors").write_bytes(b"cut off")
    reply = ask(site, 2)
    assert told(site) == [
        {"file": "partial.safetensors", "found": "damaged", "round": 2, "goes_on_after_round": 1},
    ]
    assert "round 2 begins anew" in capsys.readouterr().err
    other = create_site_folder(tmp_path / "other", "site-a", cohort, TEXT, ParameterSpec.of(generator()))
    ask(other, 1)
    assert digest(ask(other, 2)) == digest(reply)


def test_a_state_that_was_removed_is_told_like_a_damaged_one(site: SiteFolder) -> None:
    ask(site, 1)
    (site.state / COMMITTED).unlink()
    ask(site, 2)
    assert told(site) == [{"file": COMMITTED, "found": "missing", "round": 2, "goes_on_after_round": 0}]


def test_under_masks_a_state_that_was_removed_is_told_as_well(tmp_path: Path) -> None:
    """What left in an earlier round stands in the journal under another name there."""
    terms = "[federation]\nsecure_aggregation = { threshold = 3, clip = 20.0 }\n"
    names = ("site-a", "site-b", "site-c")
    cohorts = {name: write_tiny_cohort(tmp_path / "cohorts" / name, 4, seed) for seed, name in enumerate(names)}
    committed = tmp_path / "out" / "sites" / "site-a" / "state" / COMMITTED
    trained_run(
        tiny_text(rounds=2, local_steps=1) + terms,
        cohorts,
        tmp_path / "out",
        progress=lambda record: committed.unlink() if record.round == 1 else None,
    )
    site = SiteFolder.open(tmp_path / "out" / "sites" / "site-a")
    assert told(site) == [{"file": COMMITTED, "found": "missing", "round": 2, "goes_on_after_round": 0}]
    inputs = [e.facts for e in read_journal(site.journal) if e.facts.get("what") == "input"]
    assert inputs[0]["incoming"] == parameters_digest(initial_parameters(site.study()))


@pytest.mark.parametrize("rounds", [(1,), (1, 2)])
def test_a_round_whose_state_is_damaged_is_answered_again_to_the_bit(site: SiteFolder, rounds: tuple[int, ...]) -> None:
    replies = [ask(site, round_) for round_ in rounds]
    damage(site)
    assert digest(ask(site, rounds[-1])) == digest(replies[-1])
    assert len(told(site)) == 1


def test_damage_opens_no_way_to_a_second_answer_from_another_generator(site: SiteFolder) -> None:
    ask(site, 1)
    ask(site, 2)
    damage(site)
    for round_, seed in ((2, 9), (1, 1)):
        with pytest.raises(PolicyRefused, match=f"round {round_} was answered here") as refused:
            ask(site, round_, seed)
        assert "Restore state/committed.safetensors" in refused.value.remedy
    assert told(site) == []
    ask(site, 3)


def test_an_answer_that_cannot_be_repeated_is_not_given_again(site: SiteFolder) -> None:
    ask(site, 1)
    ask(site, 2)
    damage(site)
    damage(site, PREVIOUS)
    with pytest.raises(PolicyRefused, match="round 2 was answered here"):
        ask(site, 2)


def test_a_damaged_state_never_becomes_the_one_before(site: SiteFolder) -> None:
    ask(site, 1)
    ask(site, 2)
    kept = (site.state / PREVIOUS).read_bytes()
    damage(site)
    ask(site, 3)
    assert (site.state / PREVIOUS).read_bytes() == kept
