"""The only room that imports verl. veRL loads this module itself, through its `verl.plugins` entry point.

On a machine with an accelerator nothing happens here. With `VERL_PLATFORM=cpu` the CPU platform is registered.
veRL hides the load errors of entry points; the CPU recipe therefore names this module in `VERL_USE_EXTERNAL_MODULES`
too, where a load error stops the run.
"""

import os

if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
    from medix_verl.plugins import cpu_platform

    cpu_platform.install()
