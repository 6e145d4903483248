"""Which generator a hospital's patients trained: the coordinator says so, signed, to sites that never saw the end."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from audited_run import SIZES, audit_site
from carried_rounds import Carried
from linear_site import study_text
from named_generator import Naming
from refusals import refused

from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.enrolment.named_generator import NAMED_GENERATOR, named_by_coordinator
from fedphantom.common.enrolment.signed_file import opened
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.gan.weights import load_weights
from fedphantom.common.keys import load_public_key
from fedphantom.common.site_folder import SiteFolder
from fedphantom.privacy.audit.run import audit_run_folder
from fedphantom.privacy.policy import TIERS


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Carried:
    """Two carried rounds; in the first of them one site alone was averaged."""
    made = Carried.make(tmp_path_factory.mktemp("named") / "made", study_text(rounds=2, quorum=1))
    made.take(made.train("site-a"), close=True)
    made.round()
    return made


def named_by(carried: Carried, site: str = "site-a", **changes: Any) -> object:
    folder = SiteFolder.open(carried.site(site))
    arguments = {
        "statement": carried.lead / "run" / "generator.dsse.json",
        "site": folder.root,
        "name": site,
        "study": folder.study(),
        "parameters": parameters_digest(load_weights(carried.generator)[0]),
    }
    return named_by_coordinator(**(arguments | changes))


def test_a_finished_run_leaves_the_coordinators_signature_under_its_generator(finished: Carried) -> None:
    for site in ("site-a", "site-b"):
        assert named_by(finished, site) == "the coordinator's signature"
    file = finished.lead / "run" / "generator.dsse.json"
    said = opened(NAMED_GENERATOR, file.read_bytes(), [load_public_key(finished.lead / "keys" / "key.pub.pem")])
    assert (said.rounds, said.sites) == (2, ("site-a", "site-b"))
    before = file.read_bytes()
    file.unlink()
    finished.take()  # asked again, it is written again
    assert file.read_bytes() == before


def test_a_site_that_no_round_counted_is_not_named(tmp_path: Path) -> None:
    carried = Carried.make(tmp_path / "carried", study_text(rounds=1, quorum=1))
    carried.take(carried.train("site-a"), close=True)
    assert named_by(carried, "site-a")
    refused(5, "none of this site's rounds went into what it names", lambda: named_by(carried, "site-b"))


def test_where_sites_train_alone_nothing_is_named(tmp_path: Path) -> None:
    carried = Carried.make(tmp_path / "carried", study_text(rounds=1, federation='sharing = "ensemble"'))
    carried.round()
    assert not (carried.lead / "run" / "generator.dsse.json").exists()


def test_another_generator_study_or_coordinator_is_refused(finished: Carried, tmp_path: Path) -> None:
    refused(5, "it names another generator", lambda: named_by(finished, parameters="0" * 64))
    other = SiteFolder.open(finished.site("site-a")).study().model_copy(update={"seed": 8})
    refused(5, "it speaks of another study", lambda: named_by(finished, study=other))
    stranger = Carried.make(tmp_path / "stranger", study_text(rounds=2, quorum=1))
    refused(5, "unknown key", lambda: named_by(finished, site=stranger.site("site-a")))
    refused(3, "no readable named-generator", lambda: named_by(finished, statement=tmp_path / "nowhere"))
    spoilt = tmp_path / "spoilt"
    spoilt.write_bytes((finished.lead / "run" / "generator.dsse.json").read_bytes().replace(b'"sig":"', b'"sig":"A', 1))
    refused(5, "envelope|does not hold", lambda: named_by(finished, statement=spoilt))
    roster = finished.lead / "roster.dsse.json"
    refused(3, "signed, but no named-generator", lambda: named_by(finished, statement=roster))


def test_a_sites_audit_of_a_generator_that_the_coordinator_names_says_by_whose_word_it_is_theirs(
    simulated: Path, spoilt: Path
) -> None:
    generator, naming = spoilt / "run" / "generator.safetensors", Naming.of(spoilt / "lead", spoilt / "run")
    other = naming.statement(spoilt / "other", generator, parameters="0" * 64)
    refused(5, "it names another generator", lambda: audit_site(simulated, spoilt, "site-a", other))
    assert not (spoilt / "audit" / "audit.json").exists(), "no look at the holdout"
    content = audit_site(simulated, spoilt, "site-a", naming.statement(spoilt / "named", generator))
    assert content["generator_named_by"] == "the coordinator's signature"
    assert not any("No journal at hand names" in reason for reason in content["reasons"])
    assert content["generator_sha256"] == hashlib.sha256(generator.read_bytes()).hexdigest()
    json.dumps(content)


def test_a_statement_where_a_journal_names_the_generator_would_have_no_effect(simulated: Path, spoilt: Path) -> None:
    statement = Naming.of(spoilt / "lead", spoilt / "run").statement(
        spoilt / "named", spoilt / "run" / "generator.safetensors"
    )
    shutil.rmtree(spoilt / "audit", ignore_errors=True)

    def whole() -> None:
        audit_run_folder(
            spoilt / "run",
            spoilt / "synthetic",
            read_cohort(simulated / "public"),
            spoilt / "audit",
            SIZES,
            TIERS["internal"],
            named_by_file=statement,
            device="cpu",
        )

    refused(3, "it would have no effect", whole)
