"""The demo's judge: the clinical rules behind an HTTP endpoint."""
