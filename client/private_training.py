"""A site's training under differential privacy: budget first, then noised steps, then what was done of them.

The generator sees public label maps, the discriminator its site's patients through the noised step alone. A round is
paid for before its first step, whole; one that is cut off is begun anew and paid for again (PRIVACY §2).
"""

from __future__ import annotations
