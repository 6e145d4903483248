"""Usefulness and fidelity of synthetic scans, measured inside the hospital on real patients."""
