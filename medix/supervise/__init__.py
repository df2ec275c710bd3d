"""Runs veRL's own entry point under watch: follows its metrics, stops it for a stated reason, leaves no process."""
