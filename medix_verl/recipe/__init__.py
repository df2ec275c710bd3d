"""`medix recipe`: a run from its knobs, stage by stage: checks, downloads, data, judge, training, export, evaluation."""
