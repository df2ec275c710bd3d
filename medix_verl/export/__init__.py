"""A checkpoint of sharded weights becomes a folder that transformers, vLLM and the hub can read."""
