"""From a response to a verdict: by rule where a rule is certain, by judges elsewhere, not at all where they fail."""
