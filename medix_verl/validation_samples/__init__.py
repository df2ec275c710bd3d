"""The same few held-out samples at each validation, with their images: on disk, and in the run's trackers."""
