"""``python -I -m fedphantom.client.node.launcher SITE ARGUMENT...``: stands in for ``flwr-clientapp`` at a site.

Flower would unpack the coordinator's bundle and import from it, so that code which the hospital never installed could
run with its rights. Started in Flower's place (it is the first ``flwr-clientapp`` on its SuperNode's PATH), this
replaces the two functions that do so: one only looks at the bundle (:mod:`.bundle`), the other returns the installed
ClientApp. Both names are private to Flower: that they are there, and as they were, is asked before anything runs.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ...common.errors import FedPhantomError
from ...common.journal import Journal
from ...common.site_folder import SiteFolder
from ..site_round import note_failure
from .bundle import check_bundle
from .permission import check_permission

_RUNTIME = "flwr.supernode.runtime.run_clientapp"
_REPLACED = {
    "install_from_fab": "fab_file",
    "get_load_client_app_fn": "default_app_ref",
    "install_app_dependencies": "project_dir",
}
"""What is replaced there, and the first argument that each takes (flwr 1.41)."""

WRONG_FLOWER = 3
"""Exit code where Flower is not the one that this launcher knows."""


def main(arguments: Sequence[str]) -> int:
    """Run the site's own ClientApp for one task of its SuperNode.

    Args:
        arguments: The site's folder, then what Flower gives ``flwr-clientapp``.
    """
    if problem := unknown_flower():
        print(f"this launcher does not know this version of Flower: {problem}", file=sys.stderr)
        return WRONG_FLOWER
    # Inside: the module is imported by commands that have no need of Flower.
    import flwr.supernode.runtime.run_clientapp as runtime
    from flwr.clientapp import ClientApp
    from flwr.clientapp.client_app import LoadClientAppError
    from flwr.supernode.cli import flwr_clientapp

    folder = SiteFolder.open(Path(arguments[0]))

    def refuse_or_pass(content: bytes, *_: object, **__: object) -> None:
        try:
            check_bundle(content, folder.study().digest())
        except Exception as error:
            _note_refusal(folder, error)
            # Flower tells the coordinator only that loading failed; of any other exception it tells the text.
            raise LoadClientAppError("the bundle was refused") from None

    def installed(*_: object, **__: object) -> Callable[[str, str, str], ClientApp]:
        def load(fab_id: str, fab_version: str, fab_hash: str) -> ClientApp:
            from ..app import make_client_app, open_local_trainer

            return make_client_app(open_local_trainer, check_permission)

        return load

    vars(runtime).update(
        install_from_fab=refuse_or_pass, get_load_client_app_fn=installed, install_app_dependencies=_never
    )
    sys.argv = ["flwr-clientapp", *(each for each in arguments[1:] if "dependency-installation" not in each)]
    flwr_clientapp()
    return 0


def _note_refusal(folder: SiteFolder, refusal: Exception) -> None:
    """Whatever goes wrong with the noting stays here, too."""
    note_failure(folder, refusal)
    reason = (
        refusal.found
        if isinstance(refusal, FedPhantomError)
        else f"it could not be looked at ({type(refusal).__name__})"
    )
    try:
        Journal(folder.journal).append("bundle-refused", reason=reason)
    except Exception as error:
        note_failure(folder, error)


def unknown_flower() -> str | None:
    """Why the installed Flower is not one that this launcher knows; None where it is."""
    try:
        runtime = importlib.import_module(_RUNTIME)
    except ImportError:
        return f"there is no {_RUNTIME}"
    for name, first in _REPLACED.items():
        found = getattr(runtime, name, None)
        if not callable(found) or next(iter(inspect.signature(found).parameters), None) != first:
            return f"{name} is not as expected"
    return None


def _never(*_: object, **__: object) -> None:
    raise RuntimeError("nothing is installed at a site at run time")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
