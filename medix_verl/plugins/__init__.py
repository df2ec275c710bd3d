"""The only code that imports verl. veRL loads this module in every process of a run, while it is itself imported.

`medix train` names it in `VERL_USE_EXTERNAL_MODULES`, where an error of loading stops the run; veRL hides those of
its `verl.plugins` entry point, which is there for whoever starts veRL by hand. With `VERL_PLATFORM=cpu` the CPU
platform is registered. Nothing of veRL is changed on disk: see `patches`.
"""

import os

from medix_verl.plugins import patches

patches.install()
if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
    from medix_verl.plugins import cpu_platform

    cpu_platform.install()
