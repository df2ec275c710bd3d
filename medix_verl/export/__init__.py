"""From a veRL checkpoint to an ordinary Hugging Face folder, with the proof that it is the same model."""
