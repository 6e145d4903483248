"""A reply that a site signs and that says what it should not; a trainer that must not be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from carried_rounds import Carried
from linear_site import linear_generator, study_text

from fedphantom.client.node.folder import NodeFolder
from fedphantom.client.node.keys import present_keys
from fedphantom.common.exchange import RoundReply, SiteTrainer
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.common.keys import load_private_key
from fedphantom.common.round_files.reply import write_reply
from fedphantom.common.round_files.request import RequestFile, read_request
from fedphantom.common.study import parse_study

SPEC = ParameterSpec.of(linear_generator(parse_study(study_text())))


def nobody_trains(folder: Path) -> SiteTrainer:
    raise AssertionError("it trained")


def request_of(path: Path, carried: Carried) -> RequestFile:
    key = load_private_key(carried.lead / "keys" / "key.pem").public_key()
    return read_request(path, SPEC, [key], lambda statement: None)


def forged(carried: Carried, *, signer: str, says: str | None = None, **changes: Any) -> Path:
    """A reply that a site signs to the request of the round under way, saying what it should not."""
    asked = request_of(Path(carried.export().file), carried)
    roster = changes.pop("roster", asked.roster)
    generator = {name: np.ones_like(value) for name, value in asked.request.generator.items()}
    arguments: dict[str, Any] = {"site": says or signer, "round": asked.request.round, "generator": generator}
    reply = RoundReply(**(arguments | {"weight": 1.0, "metrics": {"steps": 4.0}} | changes))
    keys = present_keys(NodeFolder(carried.site(signer)))
    assert keys is not None
    path = carried.root / "forged"
    path.write_bytes(write_reply(reply, asked, roster, keys.identity))
    return path
