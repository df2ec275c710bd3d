"""Checks of a run before any Ray process starts: each passes, warns or fails, and says what to do."""
