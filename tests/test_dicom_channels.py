"""Which channel a series is: by documented rules that a site can replace, and never by a guess."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedphantom.common.dicom.channels import SequenceFacts, channel_of, read_channel_rules
from fedphantom.common.dicom.reasons import Faulty
from fedphantom.common.errors import ConfigError

RULES = read_channel_rules()
MPRAGE = SequenceFacts(technique=frozenset({"GR", "IR"}), inversion_ms=900.0, repetition_ms=2300.0, echo_ms=3.0)
SPIN_ECHO = SequenceFacts(technique=frozenset({"SE"}), repetition_ms=600.0, echo_ms=12.0)
T2 = SequenceFacts(technique=frozenset({"SE"}), repetition_ms=5000.0, echo_ms=100.0)
FLAIR = SequenceFacts(technique=frozenset({"SE", "IR"}), inversion_ms=2500.0, repetition_ms=9000.0, echo_ms=110.0)


def said(description: str, facts: SequenceFacts = SequenceFacts(), *, agent: bool = False) -> str:  # noqa: B008  # frozen
    try:
        return channel_of(replace(facts, description=description, agent=agent), RULES)
    except Faulty as found:
        return f"{found.code} {found.detail}".strip()


@pytest.mark.parametrize(
    ("description", "channel"),
    [
        ("t1_mprage_sag_p2_iso", "T1"),
        ("SAG T1 3D BRAVO", "T1"),
        ("Ax T1 SE", "T1"),
        ("T1W_3D_TFE without contrast", "T1"),
        ("t1_mprage_sag native", "T1"),
        ("AX T1 POST OP", "T1"),
        ("t1_mprage_tra_+C", "T1c"),
        ("Ax T1 SE post Gd", "T1c"),
        ("T1W gadovist", "T1c"),
        ("T1ce", "T1c"),
        ("t1_tse_tra_km", "T1c"),
        ("AX T2 TSE", "T2"),
        ("t2_space_sag", "T2"),
        ("AX T2 FLAIR", "FLAIR"),
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("3D FLAIR SPACE post contrast", "FLAIR"),
        ("Survey", "excluded"),
        ("localizer 3-plane", "excluded"),
        ("ep2d_diff_b1000_ADC", "excluded"),
        ("t2_swi3d", "excluded"),
        ("T2 map", "excluded"),
        ("PD TSE", "excluded"),
        ("t2*_gre", "no-channel"),
        ("t2_fl2d_tra_hemo", "no-channel"),
        ("quantitative something", "no-channel"),
        ("", "no-channel"),
    ],
)
def test_descriptions_of_common_scanners_are_told_apart(description: str, channel: str) -> None:
    assert said(description) == channel


@pytest.mark.parametrize(
    ("facts", "channel"), [(MPRAGE, "T1"), (SPIN_ECHO, "T1"), (T2, "T2"), (FLAIR, "FLAIR")], ids=lambda f: str(f)[:9]
)
def test_where_the_description_says_nothing_the_numbers_do(facts: SequenceFacts, channel: str) -> None:
    assert said("sag 3d", facts) == channel


def test_a_contrast_agent_in_the_header_makes_a_t1_a_t1c() -> None:
    assert said("t1_mprage", MPRAGE, agent=True) == "T1c"
    assert said("ax t2 tse", T2, agent=True) == "T2"


@pytest.mark.parametrize(
    ("description", "facts", "agent", "choices"),
    [
        ("t1_mprage pre", MPRAGE, True, "T1 or T1c"),
        ("T1 pre and post contrast", SPIN_ECHO, False, "T1 or T1c"),
        ("T1 FLAIR", SequenceFacts(), False, "T1 or FLAIR"),
        ("AX T1", T2, False, "T1 or T2"),
        ("AX T2", SPIN_ECHO, False, "T1 or T2"),
        ("T1 T2 dual", SequenceFacts(), False, "T1 or T2"),
    ],
)
def test_what_fits_several_or_contradicts_itself_is_refused_with_the_choices(
    description: str, facts: SequenceFacts, agent: bool, choices: str
) -> None:
    assert said(description, facts, agent=agent) == f"ambiguous {choices}"


def test_numbers_decide_between_what_a_description_allows() -> None:
    t1_flair = SequenceFacts(technique=frozenset({"SE", "IR"}), inversion_ms=800.0, repetition_ms=2000.0, echo_ms=10.0)
    assert said("T1 FLAIR", t1_flair) == "T1"


def test_echo_planar_images_with_the_times_of_a_t2_are_no_t2() -> None:
    diffusion = SequenceFacts(technique=frozenset({"EP", "SE"}), repetition_ms=8000.0, echo_ms=90.0)
    assert said("b 1000", diffusion) == "no-channel"


def test_a_message_repeats_nothing_of_a_description() -> None:
    assert "jane" not in said("T1 FLAIR jane roe")
    assert "jane" not in repr(SequenceFacts(description="jane roe"))


def test_a_site_can_name_rules_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "channels.toml"
    path.write_text(
        "exclude = ['test']\n[channel.DWI_b0]\ndescription = ['diff']\nacquisition = '3D'\n"
        "[channel.T1]\ndescription = ['anat']\n"
    )
    rules = read_channel_rules(path)
    assert channel_of(SequenceFacts(description="anat"), rules) == "T1"
    assert channel_of(SequenceFacts(description="DIFF", acquisition="3D"), rules) == "DWI_b0"
    with pytest.raises(Faulty, match="no-channel"):
        channel_of(SequenceFacts(description="DIFF", acquisition="2D"), rules)
    with pytest.raises(Faulty, match="excluded"):
        channel_of(SequenceFacts(description="anat test"), rules)


BAD_RULES = {
    "no TOML": "channel = [",
    "no channel": "exclude = []",
    "an unknown key": "[channel.T1]\ndescripton = ['t1']",
    "no expression": "[channel.T1]\ndescription = ['(']",
    "a falling range": "[channel.T1]\n[[channel.T1.sequence]]\necho_ms = [30, 1]",
    "an unknown technique": "[channel.T1]\n[[channel.T1.sequence]]\ntechnique = ['XX']",
    "channels with one file name": "[channel.a-b]\ndescription = ['a']\n[channel.ab]\ndescription = ['b']",
    "a channel named as a mask": "[channel.dseg]\ndescription = ['a']",
    "a channel's alias": "[channel.t1w]\ndescription = ['t1']",
}


@pytest.mark.parametrize("text", BAD_RULES.values(), ids=BAD_RULES.keys())
def test_rules_that_do_not_fit_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "channels.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="channel rules"):
        read_channel_rules(path)
    with pytest.raises(ConfigError):
        read_channel_rules(tmp_path / "absent.toml")
