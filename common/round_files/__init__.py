"""A round's request and reply as signed files, for sites without a network."""
