"""The membership-inference audit: run, controls, result, and what of it travels."""
