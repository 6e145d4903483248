"""Label maps edited by a recorded recipe: lesions moved, resized, inserted, removed; made again from their chains."""
