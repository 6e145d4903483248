"""The coordinator's side: ServerApp and strategy, checkpoints, simulation, demo."""
