"""Fingerprints that people read to each other: one spelling, forgiving reading, nothing else forgiven."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedphantom.common.enrolment.fingerprint import fingerprint, parse_fingerprint, refuse_other_fingerprint
from fedphantom.common.errors import ConfigError, SignatureInvalid

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_it_has_five_groups_of_five_and_reads_back_as_itself(parts: list[bytes]) -> None:
    made = fingerprint("thing", *parts)
    assert re.fullmatch(f"([{ALPHABET}]{{5}}-){{4}}[{ALPHABET}]{{5}}", made)
    assert parse_fingerprint(made) == made


def test_it_is_the_first_125_bits_of_sha256_over_length_and_bytes_of_every_part() -> None:
    hashed = b"".join(len(part).to_bytes(8, "big") + part for part in (b"thing", b"a", b"bc"))
    bits = "".join(f"{byte:08b}" for byte in hashlib.sha256(hashed).digest())[:125]
    letters = "".join(ALPHABET[int(bits[start : start + 5], 2)] for start in range(0, 125, 5))
    assert fingerprint("thing", b"a", b"bc").replace("-", "") == letters


def test_no_part_runs_into_the_next_and_no_kind_of_thing_into_another() -> None:
    made = {
        fingerprint("thing", b"ab", b"c"),
        fingerprint("thing", b"a", b"bc"),
        fingerprint("thing", b"abc"),
        fingerprint("other", b"ab", b"c"),
    }
    assert len(made) == 4


@given(st.data())
def test_case_spaces_hyphens_and_letters_that_look_alike_do_not_matter(data: st.DataObject) -> None:
    made = fingerprint("thing", data.draw(st.binary(max_size=8)))
    alike = {"0": "0Oo", "1": "1IiLl"}
    between = st.sampled_from(["", " ", "-", "  ", " - ", "\u2011", "\u2013", "\n", "\u00a0"])
    typed = "".join(
        data.draw(st.sampled_from(alike.get(letter, letter + letter.lower()))) + data.draw(between)
        for letter in made.replace("-", "")
    )
    assert parse_fingerprint(typed) == made
    refuse_other_fingerprint(typed, made, "the coordinator")


@given(st.binary(max_size=8), st.integers(0, 24), st.integers(1, 31))
def test_another_letter_anywhere_is_another_fingerprint(part: bytes, place: int, step: int) -> None:
    made = fingerprint("thing", part)
    letters = list(made.replace("-", ""))
    letters[place] = ALPHABET[(ALPHABET.index(letters[place]) + step) % 32]
    with pytest.raises(SignatureInvalid, match="another fingerprint") as caught:
        refuse_other_fingerprint("".join(letters), made, "the coordinator")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    "typed",
    ["", "4Z9QK", "4Z9QK-0H3TB-XV2MD-7RWEC-P15G", "4Z9QK-0H3TB-XV2MD-7RWEC-P15GYY", "U" * 25, "é" * 25, "!" * 25],
)
def test_what_was_not_typed_to_its_end_is_said_to_be_so(typed: str) -> None:
    with pytest.raises(ConfigError, match="5 groups of 5") as caught:
        refuse_other_fingerprint(typed, fingerprint("thing"), "the coordinator")
    assert caught.value.exit_code == 3
