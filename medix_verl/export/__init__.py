"""A checkpoint of sharded weights becomes a folder that transformers, vLLM and the hub can read.

What is wrong with a checkpoint, or with the folder made of it, is raised as `ExportError` from wherever it is noticed.
"""
