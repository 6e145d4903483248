"""Readers of cohort layouts: BIDS, BraTS folders, Decathlon, tables; detection among them."""
