"""Settings of every test."""

from hypothesis import HealthCheck, settings

# A loaded machine is slow; that is no fault of the code under test.
settings.register_profile("medix", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("medix")
