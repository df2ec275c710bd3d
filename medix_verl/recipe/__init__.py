"""`medix recipe`: a run from its knobs, stage by stage, from the checks to the report."""
