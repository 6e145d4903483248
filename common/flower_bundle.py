"""The bundle that starts a study's run under Flower: a name, two references and the study's digest; no code.

The coordinator writes it, each site compares what it gets with what it would have written. Both sides run what they
installed themselves.
"""

from __future__ import annotations

BUNDLE_FILE = "pyproject.toml"

SERVER_APP, CLIENT_APP = "fedphantom.server.app:app", "fedphantom.client.app:app"


def bundle_text(study_digest: str, *, client_app: str = CLIENT_APP) -> str:
    """The bundle's one file, TOML.

    Args:
        study_digest: :meth:`Study.digest` of what is trained.
        client_app: Reference to installed code that answers at a site.
    """
    return f"""\
[project]
name = "fedphantom-run"
version = "0.1.0"
description = "FedPhantom: rounds of a study"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedphantom"
fab-include = ["{BUNDLE_FILE}"]

[tool.flwr.app.components]
serverapp = "{SERVER_APP}"
clientapp = "{client_app}"

[tool.flwr.app.config]
study = "{study_digest}"
"""
