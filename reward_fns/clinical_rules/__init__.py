"""The guard of the reward, and the rule-judge: what can be said of short clinical answers without a language model."""
