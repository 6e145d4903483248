"""Cohorts: read, checked, divided into roles, prepared, written."""
