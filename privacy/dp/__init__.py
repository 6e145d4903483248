"""Differential privacy: the discriminator's noised step, what may not reach the generator, and what it costs."""
