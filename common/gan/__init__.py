"""The conditional GAN: networks, objective, training loop, weights, generation."""
