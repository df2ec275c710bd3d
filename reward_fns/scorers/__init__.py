"""Judges and embedders: the asynchronous clients that training and evaluation share. Imports no torch."""
