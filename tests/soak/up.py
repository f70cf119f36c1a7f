"""`bkai up` for tests that end its parts again and again, and with another service in the place of ours.

A part that ends often is started again later and later; here its past is forgotten soon, since the tests are not about
that. `SOAK_SERVICE` names the module that runs as the service, and `SOAK_PRELOAD` what is loaded into it.
"""

import os
import runpy
from dataclasses import replace

from jupyterhub_bkai.supervise import keeper, parts
from jupyterhub_bkai.supervise.part import Recipe
from jupyterhub_bkai.supervise.preflight import Plan

keeper.HEALTHY_S = 3.0
parts.SERVICE_MODULE = os.environ.get("SOAK_SERVICE", parts.SERVICE_MODULE)
_service = parts._service


def _with_preload(plan: Plan) -> Recipe:
    recipe = _service(plan)
    preload = os.environ.get("SOAK_PRELOAD", "")
    return replace(recipe, environment={**recipe.environment, **({"LD_PRELOAD": preload} if preload else {})})


parts._service = _with_preload

if __name__ == "__main__":
    runpy.run_module("jupyterhub_bkai.supervise", run_name="__main__")
