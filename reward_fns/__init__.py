"""Reward components, one file each, the composite and its presets: the files to edit for an ablation."""
