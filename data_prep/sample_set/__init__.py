"""Builds the sample set of the demo from medical images that public Python packages carry.

`python -m data_prep.sample_set` reads the packages of the extra `sample-data` and writes `examples/sample_data/`:
two JSONL files, the pictures they name, and the attribution. Nothing is downloaded at build time.
"""
