"""Coins, policies and audit results of any content: understood whole or refused by name, in little memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from learners import audit, make_material
from officers import OFFICERS, signer_table

from fedphantom.common.cohorts.roles import CoinRecord, draw_roles
from fedphantom.common.errors import DataError, FedPhantomError
from fedphantom.common.study import RolesTable
from fedphantom.privacy.audit.extract import AuditExtract
from fedphantom.privacy.audit.reading import read_audit
from fedphantom.privacy.audit.report import stored_text
from fedphantom.privacy.audit.small_cells import travelling
from fedphantom.privacy.evidence import BATTERY
from fedphantom.privacy.policy import parse_policy

BOUND = 32 << 20
"""Bytes at once; the longest text tried has 1 MB."""
PATIENTS = [f"patient-{number}" for number in range(8)]
WHY = 'value = 0.7\nreason = "a good reason"\nby = "the board"\non = 2026-11-20\n'
DEEP = [
    "[" * 200_000,
    '{"a":' * 100_000,
    *(text * 4_000 for text in ("[", '{"a":')),
    *(f"a = {text * 4_000}" for text in ("[", "{a=")),
    *(f"{key} = {number}" for key in ("tier", "a") for number in ("9" * 5_000, "0x" + "f" * 5_000)),
    '{"audit_number": ' + "9" * 5_000 + "}",
    "[a" + ".a" * 4_000 + "]",
    "[a" + ".a" * 100_000 + "]",
]


@pytest.fixture(scope="module")
def result() -> str:
    return audit(
        make_material(3, member=20, holdout=20, training=4, control=6), negative_seeds=1, blind_permutations=2
    ).to_json()


def refusal_of(read: Callable[[str], object], text: str) -> FedPhantomError | None:
    """Whatever else is raised would end in a traceback, and fails the test."""
    try:
        read(text)
    except FedPhantomError as refusal:
        return refusal
    return None


def judge(read: Callable[[str], object], text: str, codes: set[int], whole: str) -> None:
    tracemalloc.start()
    try:
        refusal = refusal_of(read, text)
        assert tracemalloc.get_traced_memory()[1] < BOUND
    finally:
        tracemalloc.stop()
    if refusal is not None:
        assert text != whole
        assert refusal.exit_code in codes
        assert "patient-" not in str(refusal)
        assert len(str(refusal)) < 2000


def spoilt(whole: str) -> st.SearchStrategy[str]:
    """Cut, with something in the place of a part, or something else altogether."""
    parts = st.sampled_from(
        ["", "null", "NaN", "1e999", '"x"', "{}", "[]", ", ", "\n", "\0", "-1", "true", "é", " " * 9]
    )
    cut = st.builds(
        lambda at, gone, put: whole[:at] + put + whole[at + gone :],
        st.integers(0, len(whole)),
        st.integers(0, 40),
        parts | st.text(max_size=8),
    )
    values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    tree = st.recursive(
        values, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=8
    )
    return cut | tree.map(json.dumps) | st.sampled_from([*DEEP, whole]) | st.text(max_size=40)


EXAMPLES = settings(max_examples=150, deadline=None)


@EXAMPLES
@given(st.data())
def test_coins(data: st.DataObject) -> None:
    whole = COINS
    judge(CoinRecord.from_json, data.draw(spoilt(whole)), {5}, whole)


COINS = draw_roles(PATIENTS, RolesTable(), np.random.default_rng(1)).to_json()
POLICY = f'tier = "controlled"\n{signer_table(OFFICERS["site-a"])}\n[override.auc_upper_max]\n{WHY}'


@EXAMPLES
@given(st.data())
def test_a_policy(data: st.DataObject) -> None:
    judge(parse_policy, data.draw(spoilt(POLICY)), {3}, POLICY)


@EXAMPLES
@given(key=st.text(min_size=1, max_size=12), value=st.sampled_from(["1", "true", '"x"', "[]", "{}"]))
def test_a_policy_with_a_key_that_none_has(key: str, value: str) -> None:
    line = f"{json.dumps('x' + key, ensure_ascii=True)} = {value}\n"
    if "\\u" in line:  # TOML spells some characters otherwise than JSON does
        return
    with pytest.raises(FedPhantomError) as refused:
        parse_policy(line + POLICY)
    assert refused.value.exit_code == 3


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_an_audits_result(result: str, data: st.DataObject) -> None:
    judge(lambda text: read_audit(text.encode("utf-8", "surrogatepass")), data.draw(spoilt(result)), {3, 5}, result)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_an_audits_result_with_another_value_in_one_place(result: str, data: st.DataObject) -> None:
    content = json.loads(result)
    place: object = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
        key = data.draw(st.sampled_from(keys))
        below = place[key]  # type: ignore[index]  # one of its own
        if not (isinstance(below, dict | list) and below and data.draw(st.booleans())):
            break
        place = below
    place[key] = data.draw(  # type: ignore[index]  # likewise
        st.none() | st.floats() | st.integers() | st.booleans() | st.text(max_size=5) | st.just([]) | st.just({})
    )
    judge(lambda text: read_audit(text.encode()), json.dumps(content), {3, 5}, result)


PLACES = ["by_site", "not_applicable", "too_small", "policy", "controls", "attacks", "reasons", "epsilon_means", "tier"]


@settings(max_examples=25, deadline=None)
@given(key=st.sampled_from(PLACES), value=st.sampled_from([[], {}, [{}], [[]], "x", 5, None, {"min_holdout": 50}]))
@example("policy", {"min_holdout": 50})
def test_an_audits_result_with_another_value_is_shown_or_refused(result: str, key: str, value: object) -> None:
    refusal = refusal_of(lambda text: stored_text(json.loads(text)), json.dumps(json.loads(result) | {key: value}))
    assert refusal is None or refusal.exit_code == 3
    assert refusal is None or key != "policy" or not isinstance(value, dict)


HUGE = 10**400
BEYOND: dict[str, dict[str, object]] = {
    "a number of an audit beyond all": {"audit_number": HUGE},
    "patients beyond all": {"counts": {"member": HUGE, "holdout": HUGE}},
    "steps beyond all": {"control_steps": HUGE},
    "copied patients beyond all": {"copied_members": HUGE},
    "a threshold beyond all": {"policy": {"min_holdout": HUGE}},
}


@pytest.mark.parametrize("changes", BEYOND.values(), ids=BEYOND.keys())
def test_an_audits_result_with_a_number_beyond_all(result: str, changes: dict[str, object]) -> None:
    with pytest.raises(DataError, match=next(iter(changes))):
        read_audit(json.dumps(json.loads(result) | changes).encode())


@EXAMPLES
@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
@example(5e-324)
def test_any_delta_of_few_patients_is_told_with_one_digit_downwards(delta: float) -> None:
    means = {"kind": "lower bound", "delta": delta, "unit": "patient", "adjacency": "add or remove one"}
    table = json.loads(NO_AUDIT) | {"counts": {"member": 5, "holdout": 5}, "epsilon_means": means}
    told = travelling(AuditExtract.model_validate(table)).epsilon_means
    assert told is not None
    assert delta / 2 < told.delta <= delta or told.delta == delta == 5e-324
    assert len(f"{told.delta!r}".replace("0.", "").replace(".0", "").lstrip("0").partition("e")[0]) == 1


NO_AUDIT = json.dumps(
    {
        "battery": BATTERY,
        "verdict": "FAIL",
        "tier": "internal",
        "release": "volumes",
        "generator_sha256": "0" * 64,
        "attacks": [],
        "controls": [],
    }
)
