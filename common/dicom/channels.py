"""Which channel a series is, by rules in TOML that a site can replace; what fits several is never guessed.

The rules that come with FedPhantom are ``channels.toml`` in this folder; docs/dicom.md explains them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..cohorts.bids_writer import file_key
from ..cohorts.layouts.bids import NOT_CHANNELS
from ..cohorts.layouts.channel_names import canonical_channel
from ..errors import ConfigError
from ..misfit import first_misfit
from ..toml_text import parse_toml
from .reasons import Faulty

_DEFAULT = Path(__file__).with_name("channels.toml")
_LONGEST = 64
"""Characters of a description that are looked at: as many as DICOM allows."""


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error:
        raise ValueError("no regular expression") from None
    return text


def _pair(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] <= pair[1]:
        raise ValueError("a range must rise")
    return pair


Expressions = tuple[Annotated[str, AfterValidator(_expression)], ...]
Range = Annotated[tuple[float, float], AfterValidator(_pair)]
Technique = Literal["SE", "IR", "GR", "EP", "RM"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SequenceRule(_Table):
    """What a header's numbers must be; a number that the header lacks fits no range.

    Attributes:
        technique: All of them are recorded, and EP only if it is among them.
        inversion: Whether an inversion pulse is recorded.
        repetition_ms, echo_ms, inversion_ms: Lowest and highest.
    """

    technique: tuple[Technique, ...] = ()
    inversion: bool | None = None
    repetition_ms: Range | None = None
    echo_ms: Range | None = None
    inversion_ms: Range | None = None


class ChannelRule(_Table):
    """When a series is of a channel.

    Attributes:
        description: Expressions, one of which is found in the description.
        not_description: None of these is.
        contrast: Whether contrast agent was given; either unless told.
        acquisition: Either unless told.
        sequence: One of them fits.
    """

    description: Expressions = ()
    not_description: Expressions = ()
    contrast: bool | None = None
    acquisition: Literal["2D", "3D"] | None = None
    sequence: tuple[SequenceRule, ...] = ()


class ContrastWords(_Table):
    """Words of a description that say whether contrast agent was given."""

    given: Expressions = ()
    not_given: Expressions = ()


class ChannelRules(_Table):
    """The whole file.

    Attributes:
        exclude: Series with one of these expressions in their description are left out.
        contrast: See there.
        channel: Channel to its rule.
    """

    exclude: Expressions = ()
    contrast: ContrastWords = ContrastWords()
    channel: dict[str, ChannelRule] = Field(min_length=1)


@dataclass(frozen=True)
class SequenceFacts:
    """What a header says of how a series was acquired; empty, None and False where it says nothing.

    Attributes:
        description: A technologist's words: they may name a patient.
        agent: Whether it records a contrast agent.
        acquisition: ``2D`` or ``3D``.
        technique: ``SE``, ``IR``, ``GR``, ``EP``, ``RM``.
        repetition_ms, echo_ms, inversion_ms: Times in milliseconds.
    """

    description: str = field(default="", repr=False)
    agent: bool = False
    acquisition: str = ""
    technique: frozenset[str] = frozenset()
    repetition_ms: float | None = None
    echo_ms: float | None = None
    inversion_ms: float | None = None


def read_channel_rules(path: Path | None = None) -> ChannelRules:
    """Read rules; those that come with FedPhantom unless a file is named.

    Raises:
        ConfigError: no readable TOML file, or one that does not fit; the message names the key.
    """
    try:
        rules = ChannelRules.model_validate(parse_toml((path or _DEFAULT).read_text(encoding="utf-8")))
    except ValidationError as error:
        misfit = first_misfit(error)
        found, expected = f"channel rules: {misfit.key or 'the file'}{misfit.found}", misfit.expected
    except (OSError, ValueError):
        found, expected = "channel rules: no readable TOML file", "a UTF-8 TOML file"
    else:
        strange = [name for name in rules.channel if canonical_channel(name) != name]
        keys = [file_key(name) for name in rules.channel]
        if not strange and len(set(keys)) == len(keys) and NOT_CHANNELS.isdisjoint(keys):
            return rules
        found, expected = (
            "channel rules: channels whose files could not be told apart, or not from a mask",
            "other names",
        )
        if strange:
            found, expected = f"channel rules: a channel named '{strange[0]}'", f"'{canonical_channel(strange[0])}'"
    raise ConfigError(found, expected=expected, remedy="docs/dicom.md describes the file.")


def channel_of(facts: SequenceFacts, rules: ChannelRules) -> str:
    """The channel of a series.

    What its description and what its numbers say must agree where both say something; where they allow several
    channels, or contradict each other, nothing is chosen.

    Raises:
        Faulty: "excluded", "no-channel", or "ambiguous" with the channels to choose from.
    """
    words = _plain(facts.description)
    if _found(rules.exclude, words):
        raise Faulty("excluded")
    allowed = [name for name, rule in rules.channel.items() if _allows(rule, facts, words, rules.contrast)]
    by_words = {name for name in allowed if _says(rules.channel[name], words)}
    by_numbers = {name for name in allowed if any(_fits(one, facts) for one in rules.channel[name].sequence)}
    fitting = (by_words & by_numbers) or (by_words | by_numbers)
    if not fitting:
        raise Faulty("no-channel")
    if len(fitting) > 1:
        raise Faulty("ambiguous", " or ".join(name for name in rules.channel if name in fitting))
    return fitting.pop()


def _plain(description: str) -> str:
    """Lower case, one blank for whatever separates words; ``+`` and ``*`` mean something and stay."""
    return re.sub(r"[^a-z0-9+*]+", " ", description[:_LONGEST].lower()).strip()


def _found(expressions: Expressions, words: str) -> bool:
    return any(re.search(expression, words) for expression in expressions)


def _says(rule: ChannelRule, words: str) -> bool:
    return _found(rule.description, words) and not _found(rule.not_description, words)


def _allows(rule: ChannelRule, facts: SequenceFacts, words: str, contrast: ContrastWords) -> bool:
    if rule.acquisition and facts.acquisition != rule.acquisition:
        return False
    denied = _found(contrast.not_given, words)
    without_denial = words
    for expression in contrast.not_given:
        without_denial = re.sub(expression, " ", without_denial)
    given = facts.agent or _found(contrast.given, without_denial)
    # Said and denied at once: both kinds of rule stay, and the series is ambiguous.
    return rule.contrast is None or (given and denied) or rule.contrast == given


def _fits(rule: SequenceRule, facts: SequenceFacts) -> bool:
    inverted = facts.inversion_ms is not None or "IR" in facts.technique
    pairs = (
        (rule.repetition_ms, facts.repetition_ms),
        (rule.echo_ms, facts.echo_ms),
        (rule.inversion_ms, facts.inversion_ms),
    )
    return (
        facts.technique.issuperset(rule.technique)
        and ("EP" in rule.technique or "EP" not in facts.technique)
        and rule.inversion in (None, inverted)
        and all(within is None or (ms is not None and within[0] <= ms <= within[1]) for within, ms in pairs)
    )
