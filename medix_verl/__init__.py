"""The extension of veRL: plugins, training, preflight, export, report and the `medix` command."""
