"""Secure aggregation: what both sides compute so that a coordinator learns the sum of the sites' updates alone."""
