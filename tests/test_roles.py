"""Roles and coins: drawn by patient, once, fairly, and bound to their cohort."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.common.cohorts.roles import ROLES, CoinRecord, draw_roles, load_or_draw_roles, load_roles
from fedphantom.common.errors import DataError, PolicyRefused, VerificationFailed
from fedphantom.common.study import RolesTable

IDS = [f"patient-{i:03d}" for i in range(144)]

share = st.floats(0, 0.23, allow_nan=False)
tables = st.builds(RolesTable, test=share, reference=share, control=share, audit=share, validation=st.floats(0, 0.9))
id_lists = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60, unique=True)


@settings(max_examples=60, deadline=None)
@given(ids=id_lists, table=tables, seed=st.integers(0, 2**32))
def test_every_patient_has_exactly_one_role(ids: list[str], table: RolesTable, seed: int) -> None:
    record = draw_roles(ids, table, np.random.default_rng(seed))
    assert sorted(record.roles) == sorted(ids)
    assert sorted(p for role in ROLES for p in record.patients(role)) == sorted(ids)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 400), table=tables, seed=st.integers(0, 2**32))
def test_each_share_is_met_to_within_a_patient(n: int, table: RolesTable, seed: int) -> None:
    counts = draw_roles([f"p{i}" for i in range(n)], table, np.random.default_rng(seed)).counts()
    assert abs(counts["test"] - table.test * n) <= 1
    assert abs(counts["reference"] - table.reference * n) <= 1
    assert abs(counts["control"] - table.control * n) <= 1
    assert abs(counts["member"] + counts["holdout"] - table.audit * n) <= 1
    rest = counts["training"] + counts["validation"]
    assert abs(counts["validation"] - table.validation * rest) <= 0.5 + 1e-6


@settings(max_examples=40, deadline=None)
@given(ids=st.permutations(IDS[:30]), seed=st.integers(0, 2**32))
def test_the_order_of_the_identifiers_does_not_matter(ids: list[str], seed: int) -> None:
    one = draw_roles(ids, RolesTable(), np.random.default_rng(seed))
    other = draw_roles(sorted(ids), RolesTable(), np.random.default_rng(seed))
    assert one.roles == other.roles


def test_another_seed_draws_other_roles() -> None:
    one, other = (draw_roles(IDS, RolesTable(), np.random.default_rng(s)) for s in (1, 2))
    assert one.roles != other.roles


def test_no_role_is_drawn_from_a_share_of_zero() -> None:
    table = RolesTable(test=0, reference=0, control=0, audit=0, validation=0)
    assert draw_roles(IDS, table, np.random.default_rng(0)).counts()["training"] == len(IDS)


def test_coins_are_fair_and_independent_over_seeds() -> None:
    table = RolesTable(test=0, reference=0, control=0, audit=0.95, validation=0)
    members = []
    for seed in range(2000):
        counts = draw_roles(IDS[:20], table, np.random.default_rng(seed)).counts()
        assert counts["member"] + counts["holdout"] == 19
        members.append(counts["member"])
    # Binomial(19, 1/2): mean 9.5, variance 4.75. A split into equal halves would have no variance.
    assert np.mean(members) == pytest.approx(9.5, abs=4 * np.sqrt(4.75 / 2000))
    assert np.var(members) == pytest.approx(4.75, rel=0.15)


def test_every_patient_is_as_likely_a_member_as_a_holdout() -> None:
    table = RolesTable(test=0.2, reference=0.1, control=0.1, audit=0.5, validation=0.1)
    sides: Counter[tuple[str, str]] = Counter()
    for seed in range(1500):
        for patient, role in draw_roles(IDS[:10], table, np.random.default_rng(seed)).roles.items():
            sides[patient, role] += 1
    for patient in IDS[:10]:
        member, holdout = sides[patient, "member"], sides[patient, "holdout"]
        assert abs(member - holdout) < 4.5 * np.sqrt(member + holdout)


def test_training_patients_are_members_and_unscored_ones_only() -> None:
    record = draw_roles(IDS, RolesTable(reference=0.1), np.random.default_rng(3))
    assert all(record.counts()[role] > 0 for role in ROLES)
    assert set(record.training_patients()) == set(record.patients("member")) | set(record.patients("training"))


@pytest.mark.parametrize("ids", [[], ["a", "a"]], ids=["none", "one given twice"])
def test_a_cohort_without_distinct_patients_is_refused(ids: list[str]) -> None:
    with pytest.raises(DataError):
        draw_roles(ids, RolesTable(), np.random.default_rng(0))


def test_a_record_survives_its_file() -> None:
    record = draw_roles(["zoë", "a", "b"], RolesTable(), np.random.default_rng(0), seed_source="a test")
    assert CoinRecord.from_json(record.to_json()) == record


def test_the_digest_says_nothing_without_its_salt() -> None:
    one, other = (draw_roles(IDS, RolesTable(), np.random.default_rng(1)) for _ in range(2))
    assert one.roles == other.roles
    assert one.cohort_digest != other.cohort_digest


def test_the_first_draw_is_kept_whatever_is_asked_later(tmp_path: Path) -> None:
    path = tmp_path / "site" / "coins.json"
    first = load_or_draw_roles(path, IDS, RolesTable(), np.random.default_rng(1))
    written = path.read_bytes()
    again = load_or_draw_roles(path, reversed(IDS), RolesTable(test=0.4), np.random.default_rng(2))
    assert again == first
    assert load_roles(path) == first
    assert path.read_bytes() == written


@pytest.mark.parametrize(
    "changed", [IDS[:-1], [*IDS, "new"], [*IDS[:-1], "renamed"]], ids=["one less", "one more", "one renamed"]
)
def test_a_changed_cohort_is_refused(tmp_path: Path, changed: list[str]) -> None:
    path = tmp_path / "coins.json"
    load_or_draw_roles(path, IDS, RolesTable(), np.random.default_rng(1))
    written = path.read_bytes()
    with pytest.raises(PolicyRefused) as refusal:
        load_or_draw_roles(path, changed, RolesTable(), np.random.default_rng(1))
    assert refusal.value.exit_code == 4
    assert "patient-" not in str(refusal.value)
    assert path.read_bytes() == written


BROKEN = {
    "no JSON": lambda text: text[:-20],
    "an unknown role": lambda text: text.replace('"holdout"', '"friend"', 1),
    "a patient more": lambda text: text.replace('"roles": {', '"roles": {"x": "test",'),
    "another digest": lambda text: text.replace('"cohort_digest": "', '"cohort_digest": "0'),
    "another format": lambda text: text.replace("record 1", "record 9"),
    "not an object": lambda text: "[]",
    "a salt that is no salt": lambda text: text.replace('"salt": "', '"salt": "zz'),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN.keys())
def test_a_damaged_record_is_never_believed_nor_drawn_anew(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]  # a table of lambdas
    path = tmp_path / "coins.json"
    load_or_draw_roles(path, IDS, RolesTable(), np.random.default_rng(1))
    path.write_text(damage(path.read_text()))
    broken = path.read_bytes()
    with pytest.raises(VerificationFailed):
        load_or_draw_roles(path, IDS, RolesTable(), np.random.default_rng(1))
    assert path.read_bytes() == broken


def test_two_starts_at_once_agree_on_one_draw(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "coins.json"

    def start(seed: int) -> CoinRecord:
        return load_or_draw_roles(path, IDS, RolesTable(), np.random.default_rng(seed))

    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(start, range(8)))
    assert all(record == records[0] for record in records)
