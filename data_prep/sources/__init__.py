"""Data sources: each yields samples."""
