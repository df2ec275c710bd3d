"""Starting a training run: what is recorded with it, and the commands `medix train` and `medix config`."""
