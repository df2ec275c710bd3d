"""A tiny Qwen2.5-VL with its own tokenizer and processor, warm-started to a deliberately mediocre policy.

It exists so that the whole pipeline can be run, and seen to learn, on two CPU cores. It is not a medical model.
"""
