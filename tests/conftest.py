"""What the tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Stand-ins that tests and the processes they start both import.
sys.path.insert(0, str(Path(__file__).parent / "fakes"))

# No test phones home, whoever imports Flower first.
os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
