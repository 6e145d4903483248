"""Volumes and grids: NIfTI files, and how voxels come onto a study's grid."""
