"""What does not fit in a file is told in our words: key, value and kind, what is expected; never in the library's."""

from __future__ import annotations

import re

import pytest
from tiny_cohorts import tiny_text

from fedphantom.common.errors import ConfigError
from fedphantom.common.labels.recipe import parse_recipe
from fedphantom.common.study import parse_study
from fedphantom.privacy.policy import parse_policy

LIBRARY = re.compile(
    r"Input should|valid (integer|number|string|dictionary|boolean|tuple|list)|Field required|Extra inputs|"
    r"Value error|parse|pydantic|unable to|should (match|have)|[\^$]\[|instance of|function-"
)
"""Words that pydantic would have used."""

STUDIES: dict[str, tuple[str, str, str, str]] = {
    "a word for a number": (
        "rounds = 2",
        'rounds = "two"',
        "'training.rounds' is 'two', which is text",
        "whole number",
    ),
    "a number below the least": ("rounds = 2", "rounds = -3", "'training.rounds' is -3", "a number above 0"),
    "a number above the most": ("rounds = 2", "rounds = 9000000", "is 9000000", "at most 1e+06"),
    "half a round": ("rounds = 2", "rounds = 2.5", "'training.rounds' is 2.5", "a whole number"),
    "a list for a number": ("rounds = 2", "rounds = [2]", "is [2], a list of 1", "a whole number"),
    "a table for a number": ("rounds = 2", "rounds = { a = 2 }", "is a table", "a whole number"),
    "a truth for a number": ("[4.0, 4.0, 4.0]", '[4.0, "x", 4.0]', "'grid.spacing_mm.1' is 'x'", "a number"),
    "a number for a text": ('name = "tiny"', "name = 5", "'name' is 5", "text"),
    "a table for a word": (
        'preset = "tiny"',
        "preset = { a = 1 }",
        "'network.preset' is a table",
        "one of 'tiny'",
    ),
    "a name with spaces": ('name = "tiny"', 'name = "My Study"', "'name' is 'My Study'", "1 to 63 lower-case letters"),
    "an unknown word": ('preset = "tiny"', 'preset = "huge"', "'network.preset' is 'huge'", "one of 'tiny'"),
    "an unknown key": ("rounds = 2", "round = 2", "'training.round' is unknown", "keys that the file can have"),
    "a missing key": ("seed = 5", "", "'seed' is missing", "a value for every key"),
    "two axes": ("shape = [16, 16, 16]", "shape = [16, 16]", "'grid.shape.2' is missing", "a value"),
    "four axes": ("shape = [16, 16, 16]", "shape = [16, 16, 16, 16]", "'grid.shape' is [16, 16, 16, 16]", "at most 3"),
    "no channel": ("channels = ['T1', 'FLAIR']", "channels = []", "'channels' is [], a list of 0", "1 or more"),
    "a text for a list": ("channels = ['T1', 'FLAIR']", 'channels = "T1"', "'channels' is 'T1'", "a list"),
    "infinity": ("[4.0, 4.0, 4.0]", "[4.0, inf, 4.0]", "'grid.spacing_mm.1' is inf", "a finite number"),
    "a value that does not go with the others": (
        "spacing_mm = [4.0",
        "spacing_mm = [99.0",
        "must lie in (0, 50)",
        "fit",
    ),
    "a label above the most": ("tumour = 4", "tumour = 400", "'labels.tumour' is 400", "at most 255"),
}


@pytest.mark.parametrize("mistake", STUDIES)
def test_a_studys_mistake_is_told_by_key_value_and_kind(mistake: str) -> None:
    right, wrong, found, expected = STUDIES[mistake]
    assert right in tiny_text()
    with pytest.raises(ConfigError) as refused:
        parse_study(tiny_text().replace(right, wrong))
    assert found in refused.value.found
    assert expected in refused.value.expected
    assert not LIBRARY.search(str(refused.value))


HEAD = 'name = "r"\ncitation = "by hand"\n'
RECIPES: dict[str, tuple[str, str, str]] = {
    "an unknown operation": ('[[edit]]\noperation = "melt"\n', "edit 1 has 'operation' 'melt'", "'scale'"),
    "no operation": ("[[edit]]\nmm = 1\n", "edit 1 has no 'operation'", "a key 'operation'"),
    "a word for a factor": (
        '[[edit]]\noperation = "scale"\nfactor = "big"\n',
        "'factor': needs a number, or a range",
        "this key can",
    ),
    "a negative factor": ('[[edit]]\noperation = "scale"\nfactor = -1\n', "must be above 0 (found -1)", "this key can"),
    "two lengths": (
        '[[edit]]\noperation = "grow"\npart = "oedema"\nmm = 1\nvoxels = 1\n',
        "exactly one of mm and voxels",
        "fit together",
    ),
    "a probability above 1": ('[[edit]]\noperation = "scale"\nfactor = 1\nprobability = 2\n', "is 2", "at most 1"),
    "no edits": ("edit = []\n", "'edit' is [], a list of 0", "1 or more"),
}


@pytest.mark.parametrize("mistake", RECIPES)
def test_a_recipes_mistake_is_told_by_edit_and_key(mistake: str) -> None:
    text, found, expected = RECIPES[mistake]
    with pytest.raises(ConfigError) as refused:
        parse_recipe(HEAD + text)
    assert found in refused.value.found
    assert expected in refused.value.expected
    assert not LIBRARY.search(str(refused.value))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('tier = "secret"', "'tier' is 'secret'"),
        ("max_auc = 1", "'max_auc' is unknown"),
        ('[override.auc_upper_max]\nvalue = 1.4\nreason = "a good reason"', "1.4"),
        ("[override.auc_upper_max]\nvalue = 0.7", "'override.auc_upper_max.reason' is missing"),
    ],
)
def test_a_policys_mistake_is_told_by_key(text: str, found: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_policy(text)
    assert found in refused.value.found
    assert not LIBRARY.search(str(refused.value))
