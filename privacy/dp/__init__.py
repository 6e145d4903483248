"""Differential privacy: what a patient's part in training costs, and the ledger that holds a cohort to its budget."""
