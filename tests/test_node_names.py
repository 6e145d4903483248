"""A node is the site that its registered key belongs to, whatever anybody calls it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flower_messages import InProcessGrid
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.primitives.asymmetric import public_key_to_bytes  # private: how a SuperLink keeps a key

from fedphantom.common.errors import ConfigError
from fedphantom.server.node_names import sites_of_nodes
from fedphantom.server.polling_grid import PollingGrid

KEYS = [ec.generate_private_key(ec.SECP384R1()).public_key() for _ in range(3)]


def openssh(key: ec.EllipticCurvePublicKey, comment: str = "") -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + comment


class Connected(InProcessGrid):
    """A grid that knows its nodes as a SuperLink does."""

    def __init__(self, nodes: Iterable[NodeInfo]) -> None:
        super().__init__(ClientApp(), [])
        self.nodes = list(nodes)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return self.nodes


def node(number: int, key: bytes, name: str = "") -> NodeInfo:
    return NodeInfo(node_id=number, public_key=key, name=name)


def test_nodes_are_named_by_the_keys_that_they_registered() -> None:
    grid = Connected([node(2**63 + n, public_key_to_bytes(key)) for n, key in enumerate(KEYS)])
    known = {openssh(KEYS[0], " a@hospital\n"): "site-a", openssh(KEYS[2]): "site-c"}
    assert sites_of_nodes(PollingGrid(grid), known) == {2**63: "site-a", 2**63 + 2: "site-c"}


STRANGERS = {
    "a name that somebody typed": node(7, public_key_to_bytes(KEYS[1]), name="site-a"),
    "no key": node(7, b"", name="site-a"),
    "no key at all in it": node(7, b"-----BEGIN PUBLIC KEY-----\nnothing\n-----END PUBLIC KEY-----\n"),
    "bytes": node(7, bytes(range(97))),
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
def test_a_node_whose_key_is_not_enrolled_is_nobodys(stranger: NodeInfo) -> None:
    assert sites_of_nodes(Connected([stranger]), {openssh(KEYS[0]): "site-a"}) == {}


@pytest.mark.parametrize(
    "keys", [{"ssh-ed25519 what": "site-a"}, {openssh(KEYS[0]): "site-a", openssh(KEYS[0], " again"): "site-b"}]
)
def test_keys_that_are_none_or_stand_for_two_sites_are_refused(keys: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="the node key of site"):
        sites_of_nodes(Connected([]), keys)
