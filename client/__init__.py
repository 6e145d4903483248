"""The hospital's side: local training under Flower, what may leave, evaluation on real patients."""
