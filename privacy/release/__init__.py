"""Releases: packed, signed, verified offline."""
