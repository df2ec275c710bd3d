"""MediX-R1, open-ended medical reinforcement learning, as a thin extension of veRL."""

__version__ = "0.1.0"
