"""`python -m jupyterhub_bkai.supervise` with the stub in place of the service."""

import runpy

from jupyterhub_bkai.supervise import parts

parts.SERVICE_MODULE = "stub_service"
runpy.run_module("jupyterhub_bkai.supervise", run_name="__main__")
