"""The compliance officer's side: attacks, controls, statistics, audit, gate, release, report."""
