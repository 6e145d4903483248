"""What all wings share: cohort and volume I/O, networks, the training loop, generation, signing."""
