"""Audits of several institutions as one: what each shares of its own, signed, and what they say together."""
