"""Label maps: the public sampler and its parts, chains that say where a map comes from."""
