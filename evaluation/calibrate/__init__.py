"""How far a judge can be believed: its verdicts on pairs whose truth is known, by kind of error."""
