"""Builds the sample set of the demo from medical images that public Python packages carry.

`python -m examples.sample_data.build` reads the packages of the extra `sample-data` and writes `examples/sample_data/`:
two JSONL files, the pictures they name, and the attribution. Nothing is downloaded at build time.
"""
