"""Data preparation: one source a file, images, validation, deduplication."""
