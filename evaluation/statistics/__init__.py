"""Intervals, agreement, paired tests and corrections. Plain functions on arrays; scipy gives the distributions."""
