"""How many examples the tests of any input try: the same few in every run, or many new ones where they are asked for.

With ``FUZZ=20`` in the environment each test tries twenty times as many, chosen at random, and keeps in `.local/cache`
what failed. A run without it says the same again of the same code.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck

#: How many times as many examples as usual; 0 for the usual ones.
FUZZ = int(os.environ.get("FUZZ") or 0)
#: For tests that say nothing else.
USUAL_COUNT = 50


def examples(count: int = USUAL_COUNT) -> dict[str, Any]:
    """Hypothesis' settings for ``count`` examples, whose time says how busy the machine is and is not limited."""
    chosen: dict[str, Any] = {
        "max_examples": count * max(FUZZ, 1),
        "derandomize": not FUZZ,
        "deadline": None,
        "suppress_health_check": [HealthCheck.too_slow],
    }
    return chosen if FUZZ else chosen | {"database": None}
