"""How long property tests search: the same cases every day, and ``--hypothesis-profile=long`` for many random ones."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_ALWAYS = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("everyday", derandomize=True, max_examples=150, **_ALWAYS)
settings.register_profile("long", max_examples=5000, **_ALWAYS)
settings.load_profile("everyday")
