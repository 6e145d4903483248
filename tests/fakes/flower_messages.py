"""Flower's messages in one process: linear sites behind a grid that calls their ClientApps directly."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity  # private: Message() reads its run and node from it
from linear_site import LinearTrainer, linear_generator, study_text

from fedphantom.client.app import make_client_app
from fedphantom.client.site_setup import create_site_folder
from fedphantom.common.gan.parameters import ParameterSpec
from fedphantom.server.rounds import Rounds
from fedphantom.server.run_folder import RunFolder


class InProcessGrid(Grid):
    """Calls ClientApps directly; ``change`` may tamper with a reply, or drop it by returning None."""

    def __init__(self, app: ClientApp, folders: list[Path]) -> None:
        self.app = app
        self.sent: list[Message] = []
        self.replies: dict[str, Message] = {}
        self.contexts = {
            node: Context(
                run_id=1, node_id=node, node_config={"site-dir": str(path)}, state=RecordDict(), run_config={}
            )
            for node, path in enumerate(folders, start=2)
        }

    def change(self, node: int, reply: Message) -> Message | None:
        return reply

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        raise AssertionError("the strategy asks for no such thing")

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise AssertionError("the strategy asks for no such thing")

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        identifiers = []
        for message in messages:
            node, identifier = message.metadata.dst_node_id, message.object_id
            message.metadata.__dict__["_message_id"] = identifier
            message.metadata.__dict__["_run_id"] = 1
            self.sent.append(message)
            TaskIdentity.node_id = node
            try:
                reply = self.change(node, self.app(message, self.contexts[node]))
            finally:
                TaskIdentity.node_id = 0
            if reply is not None:
                self.replies[identifier] = reply
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        # The last come first: the order in which sites answer must not matter.
        return [self.replies.pop(i) for i in reversed(list(message_ids)) if i in self.replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise AssertionError("the strategy asks for no such thing")


def prepared(
    out: Path, cohorts: dict[str, Path], text: str = "", grid: type[InProcessGrid] = InProcessGrid
) -> tuple[RunFolder, InProcessGrid]:
    """A claimed run folder with its initial checkpoint, and a grid of linear sites."""
    folder, text = RunFolder(out), text or study_text()
    study = folder.claim(text, tuple(cohorts))
    generator = linear_generator(study)
    for name, cohort in cohorts.items():
        create_site_folder(folder.site(name), name, cohort, text, ParameterSpec.of(generator))
    Rounds.open(study, folder, tuple(cohorts), generator)
    return folder, grid(make_client_app(LinearTrainer.open), [folder.site(name) for name in cohorts])
