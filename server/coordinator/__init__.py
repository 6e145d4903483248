"""The deployed coordinator: authority, registry, SuperLink behind its proxy, running and resuming a study."""
