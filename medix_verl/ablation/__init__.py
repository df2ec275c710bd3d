"""`medix ablate`: run the variants of a study, then hold what each reward paid against what was true."""
