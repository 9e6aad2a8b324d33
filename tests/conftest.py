"""What all tests share: how hard hypothesis tries. `HYPOTHESIS_PROFILE=thorough` tries harder."""

import os

from hypothesis import HealthCheck, settings

# A busy machine of two cores is slow at times, and that is no failure.
_QUIET = (HealthCheck.too_slow,)
settings.register_profile("quick", max_examples=60, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("thorough", max_examples=2000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
