"""Keys, shares, sealed boxes and masks of secure aggregation, each by itself."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from fedphantom.common.errors import ConfigError, PolicyRefused, SignatureInvalid, VerificationFailed
from fedphantom.common.masking.fixed_point import FixedPoint
from fedphantom.common.masking.keys import KeySet, RoundKeys, RoundSecrets, derived_key, read_key_set, read_keys
from fedphantom.common.masking.masks import add_own_mask, add_shared_mask
from fedphantom.common.masking.peers import Peers
from fedphantom.common.masking.sealing import SEALED_BYTES, Shares, seal, unseal
from fedphantom.common.masking.shares import combine, split
from fedphantom.common.masking.threshold import helpers_borne, smallest_group, threshold_problem
from fedphantom.common.signing import sign

STUDY = "5" * 64
SITES = ("site-a", "site-b", "site-c", "site-d")
IDENTITIES = {site: Ed25519PrivateKey.generate() for site in SITES}
PEERS = Peers({site: key.public_key() for site, key in IDENTITIES.items()})
SECRETS = {site: RoundSecrets.fresh() for site in SITES}


def signed(site: str, secrets: RoundSecrets | None = None, round_: int = 2, study: str = STUDY) -> bytes:
    return (secrets or SECRETS[site]).signed(IDENTITIES[site], study=study, peers=PEERS, round=round_, site=site)


def read(envelopes: list[bytes], threshold: int = 3, fewest: int = 3) -> KeySet:
    return read_key_set(envelopes, PEERS, study=STUDY, round=2, threshold=threshold, fewest=fewest)


KEYS = read([signed(site) for site in SITES])


# Thresholds


def groups_that_can_be_opened(sites: int, threshold: int) -> set[int]:
    """Sizes of the sums that a lying coordinator can open, by trying every story it could tell every site."""
    stories = {
        site: [None]
        + [
            frozenset(alive)
            for size in range(threshold, sites + 1)
            for alive in itertools.combinations(range(sites), size)
            if site in alive
        ]
        for site in range(sites)
    }
    sizes = set()
    for told in itertools.product(*(stories[site] for site in range(sites))):
        seeds = [sum(alive is not None and site in alive for alive in told) for site in range(sites)]
        masks = [sum(alive is not None and site not in alive for alive in told) for site in range(sites)]
        assert not any(s >= threshold and m >= threshold for s, m in zip(seeds, masks, strict=True))
        summed = [site for site in range(sites) if seeds[site] >= threshold]
        if summed and all(masks[site] >= threshold for site in range(sites) if site not in summed):
            sizes.add(len(summed))
    return sizes


@pytest.mark.parametrize(("sites", "threshold"), [(3, 3), (4, 3), (4, 4), (5, 4)])
def test_whatever_each_site_is_told_no_smaller_sum_than_said_can_be_opened(sites: int, threshold: int) -> None:
    assert min(groups_that_can_be_opened(sites, threshold)) >= smallest_group(sites, threshold)


def test_at_half_the_sites_both_secrets_of_one_could_be_had() -> None:
    assert threshold_problem(4, 2)
    with pytest.raises(AssertionError):
        groups_that_can_be_opened(4, 2)


@given(st.integers(3, 200), st.data())
def test_a_threshold_above_half_of_the_sites_never_gives_one_sites_input_away(sites: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(max(3, sites // 2 + 1), sites))
    assert threshold_problem(sites, threshold) is None
    helpers = helpers_borne(sites, threshold)
    assert 0 <= helpers < threshold
    assert smallest_group(sites, threshold) >= 2
    assert smallest_group(sites, threshold, helpers) >= 2
    # Enough honest sites are left that no two groups of them can be told otherwise.
    assert 2 * (threshold - helpers) > sites - helpers


def test_the_table_in_the_documents_says_what_the_functions_do() -> None:
    text = (Path(__file__).parent.parent / "docs" / "secure-aggregation.md").read_text(encoding="utf-8")
    rows = [
        tuple(map(int, row)) for row in re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.M)
    ]
    assert len(rows) >= 5
    assert rows == [(n, t, n - t, helpers_borne(n, t), smallest_group(n, t)) for n, t, *_ in rows]


@pytest.mark.parametrize(("sites", "threshold"), [(2, 2), (3, 4), (6, 3), (1, 1)])
def test_thresholds_that_protect_nothing_are_named(sites: int, threshold: int) -> None:
    assert threshold_problem(sites, threshold)


# Shares


@settings(deadline=None, max_examples=25)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 9), st.data())
def test_any_threshold_of_the_shares_give_the_secret(secret: bytes, threshold: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(threshold, 10))
    shares = split(secret, threshold, count)
    chosen = data.draw(st.permutations(range(count)))[:threshold]
    assert combine({place: shares[place] for place in chosen}, threshold) == secret


def test_fewer_shares_than_the_threshold_give_nothing() -> None:
    secret = bytes(range(32))
    shares = split(secret, 3, 4)
    with pytest.raises(ValueError, match="2 shares of 3"):
        combine({0: shares[0], 1: shares[1]}, 3)
    # Interpolated as if two were enough, they give something else.
    assert combine({0: shares[0], 1: shares[1]}, 2) != secret


# Keys


def test_keys_come_in_site_order_and_the_same_set_is_the_same_session() -> None:
    again = read([signed(site) for site in reversed(SITES)])
    assert again.sites == SITES
    assert again.session == KEYS.session


def test_one_sites_new_keys_are_another_session() -> None:
    assert read([signed("site-a", RoundSecrets.fresh()), *map(signed, SITES[1:])]).session != KEYS.session


def _forged() -> bytes:
    """The keys of site-b, signed by somebody else: a coordinator's that wants to stand between."""
    return SECRETS["site-b"].signed(Ed25519PrivateKey.generate(), study=STUDY, peers=PEERS, round=2, site="site-b")


def _of_other_peers() -> bytes:
    others = Peers({**PEERS.keys, "site-e": Ed25519PrivateKey.generate().public_key()})
    return SECRETS["site-b"].signed(IDENTITIES["site-b"], study=STUDY, peers=others, round=2, site="site-b")


def _in_anothers_name() -> bytes:
    return SECRETS["site-b"].signed(IDENTITIES["site-d"], study=STUDY, peers=PEERS, round=2, site="site-b")


def _with_low_order() -> bytes:
    text = KEYS.of("site-b").model_copy(update={"mask": "0" * 64}).model_dump_json()
    return sign(text.encode(), IDENTITIES["site-b"])


FOREIGN = {
    "by another key": _forged(),
    "an older round's": signed("site-b", round_=1),
    "another study's": signed("site-b", study="6" * 64),
    "of another list of sites": _of_other_peers(),
    "of a site in another's name": _in_anothers_name(),
    "no envelope": b"{}",
    "too long": signed("site-b") + b" " * 4000,
    "another signed text": sign(b'{"kind": "something else"}', IDENTITIES["site-b"]),
    "of a site that was not approved": RoundSecrets.fresh().signed(
        Ed25519PrivateKey.generate(), study=STUDY, peers=PEERS, round=2, site="site-e"
    ),
}


@pytest.mark.parametrize("envelope", FOREIGN.values(), ids=FOREIGN.keys())
def test_keys_that_an_approved_site_did_not_sign_for_this_round_are_refused(envelope: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        read([signed("site-a"), envelope, signed("site-c"), signed("site-d")])


def test_a_site_twice_and_a_key_twice_are_refused() -> None:
    three = [signed(site) for site in SITES[:3]]
    with pytest.raises(SignatureInvalid, match="one site twice"):
        read([*three, signed("site-a", RoundSecrets.fresh())])
    copied = replace(RoundSecrets.fresh(), mask=SECRETS["site-a"].mask)
    with pytest.raises(SignatureInvalid, match="one masking key twice"):
        read([*three, signed("site-d", copied)])


@pytest.mark.parametrize(("count", "threshold", "fewest"), [(2, 3, 3), (3, 4, 3), (3, 3, 4), (0, 3, 3)], ids=str)
def test_fewer_sites_than_threshold_or_than_asked_for_are_refused(count: int, threshold: int, fewest: int) -> None:
    with pytest.raises(PolicyRefused):
        read([signed(site) for site in SITES[:count]], threshold, fewest)


def test_a_public_key_of_low_order_is_refused_when_it_would_be_used() -> None:
    keys = read([signed("site-a"), _with_low_order(), signed("site-c"), signed("site-d")])
    with pytest.raises(SignatureInvalid, match="everybody can make"):
        derived_key(SECRETS["site-a"].mask, keys.of("site-b").mask, keys.session, "mask")


@settings(max_examples=60)
@given(st.data())
def test_no_changed_byte_of_signed_keys_is_accepted(data: st.DataObject) -> None:
    envelope = bytearray(signed("site-a"))
    place = data.draw(st.integers(0, len(envelope) - 1))
    envelope[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SignatureInvalid):
        read_keys(bytes(envelope), PEERS, study=STUDY, round=2)


def test_one_identity_under_two_names_is_no_list_of_sites() -> None:
    key = Ed25519PrivateKey.generate().public_key()
    with pytest.raises(ConfigError, match="one identity key"):
        Peers({"site-a": key, "site-b": key})


def test_what_is_signed_holds_no_private_half() -> None:
    secrets = SECRETS["site-a"]
    text = KEYS.of("site-a").model_dump_json()
    for private in (secrets.cipher.private_bytes_raw(), secrets.mask.private_bytes_raw(), secrets.seed):
        assert private.hex() not in text
    assert RoundKeys.model_validate_json(text) == KEYS.of("site-a")


# Sealed shares

SHARES = Shares(b"m" * 32, b"s" * 32)


def test_only_the_receiver_opens_what_was_sealed_for_it() -> None:
    sealed = seal(SHARES, SECRETS["site-a"], KEYS, "site-a", "site-b")
    assert len(sealed) == SEALED_BYTES
    assert unseal(sealed, SECRETS["site-b"], KEYS, "site-a", "site-b") == SHARES
    for sender, receiver in [("site-a", "site-c"), ("site-c", "site-b"), ("site-b", "site-a")]:
        with pytest.raises(VerificationFailed):
            unseal(sealed, SECRETS[receiver], KEYS, sender, receiver)


def test_what_was_sealed_among_other_keys_does_not_open() -> None:
    """A coordinator shows site-b an earlier attempt's keys of site-c: site-b cannot open what site-a sealed."""
    sealed = seal(SHARES, SECRETS["site-a"], KEYS, "site-a", "site-b")
    other = read([*map(signed, SITES[:2]), signed("site-c", RoundSecrets.fresh()), signed("site-d")])
    with pytest.raises(VerificationFailed):
        unseal(sealed, SECRETS["site-b"], other, "site-a", "site-b")


@given(st.integers(0, SEALED_BYTES - 1), st.integers(1, 255))
def test_a_changed_byte_of_what_was_sealed_is_noticed(place: int, change: int) -> None:
    sealed = bytearray(seal(SHARES, SECRETS["site-a"], KEYS, "site-a", "site-b"))
    sealed[place] ^= change
    with pytest.raises(VerificationFailed):
        unseal(bytes(sealed), SECRETS["site-b"], KEYS, "site-a", "site-b")


# Masks


START = "7" * 64


def masked(site: str, values: np.ndarray, start: str = START) -> np.ndarray:
    out = values.copy()
    add_own_mask(out, SECRETS[site].seed, KEYS, site)
    for other in SITES:
        if other != site:
            add_shared_mask(out, SECRETS[site].mask, KEYS, site, other, start)
    return out


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_shared_masks_cancel_and_own_masks_come_off(size: int) -> None:
    random = np.random.default_rng(size)
    inputs = {site: random.integers(0, 2**32, size, dtype=np.uint32) for site in SITES}
    total = sum((masked(site, values) for site, values in inputs.items()), np.zeros(size, np.uint32))
    for site in SITES:
        add_own_mask(total, SECRETS[site].seed, KEYS, site, times=-1)
    np.testing.assert_array_equal(total, sum(inputs.values(), np.zeros(size, np.uint32)))


def test_masks_are_the_same_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = masked("site-b", np.zeros(1000, np.uint32))
    monkeypatch.setattr("fedphantom.common.masking.masks._BLOCK", 64)
    np.testing.assert_array_equal(masked("site-b", np.zeros(1000, np.uint32)), whole)


def uniformity(values: np.ndarray) -> float:
    """p-value that the bytes of these values are uniform, by Pearson's χ² over their 256 values."""
    return float(chisquare(np.bincount(values.view(np.uint8), minlength=256)).pvalue)


def test_a_masked_input_alone_looks_uniform_and_an_unmasked_one_does_not() -> None:
    trained = np.random.default_rng(3).normal(scale=0.01, size=100_000).astype(np.float32)
    values, _ = FixedPoint(20.0, 20).encode(trained, np.zeros_like(trained), 1)
    assert uniformity(values) < 1e-100
    hidden = masked("site-a", values)
    assert uniformity(hidden) > 1e-6
    correlation = np.corrcoef(hidden.view(np.int32), values.view(np.int32))[0, 1]
    assert abs(correlation) < 0.02  # 6 standard errors


def test_whoever_lacks_one_mask_of_an_input_sees_nothing_of_it() -> None:
    values = np.arange(10_000, dtype=np.uint32)
    hidden = masked("site-a", values)
    add_own_mask(hidden, SECRETS["site-a"].seed, KEYS, "site-a", times=-1)
    for other in ("site-b", "site-c"):
        add_shared_mask(hidden, SECRETS["site-a"].mask, KEYS, "site-a", other, START, times=-1)
    assert uniformity(hidden) > 1e-6
    add_shared_mask(hidden, SECRETS["site-a"].mask, KEYS, "site-a", "site-d", START, times=-1)
    np.testing.assert_array_equal(hidden, values)


def test_of_a_site_that_began_with_another_generator_the_sum_tells_nothing() -> None:
    """A coordinator can give the others what their updates are nothing from: the sum would be one site's."""
    nothing, values = np.zeros(10_000, np.uint32), np.arange(10_000, dtype=np.uint32)
    for start, told in ((START, True), ("8" * 64, False)):
        total = masked("site-a", values) + sum((masked(site, nothing, start) for site in SITES[1:]), nothing)
        for site in SITES:
            add_own_mask(total, SECRETS[site].seed, KEYS, site, times=-1)
        assert np.array_equal(total, values) == told
        assert (uniformity(total) > 1e-6) != told


def test_either_end_of_a_pair_makes_the_same_mask() -> None:
    for secret, site, other in (
        (SECRETS["site-a"].mask, "site-a", "site-b"),
        (SECRETS["site-b"].mask, "site-b", "site-a"),
    ):
        assert derived_key(secret, KEYS.of(other).mask, KEYS.session, "x") == derived_key(
            SECRETS[other].mask, KEYS.of(site).mask, KEYS.session, "x"
        )
    assert isinstance(SECRETS["site-a"].mask, X25519PrivateKey)
