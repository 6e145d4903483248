"""Procedural patients, and how they look on a scanner."""
