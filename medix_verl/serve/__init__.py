"""`medix serve`: a judge or an embedder as an OpenAI-compatible server, watched from its start to its clean end."""
