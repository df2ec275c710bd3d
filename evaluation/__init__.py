"""Evaluation: tasks as data, generate, judge, score, report."""
