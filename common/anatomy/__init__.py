"""Anatomy inferred from a cohort's images, under the labels that its hospital drew."""
