"""How proxy, service and hub are run, from the plan.

Owns their command lines and environments. Secrets travel in environments and closed files, never in command
lines, which everybody on the machine can read.
"""

import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from jupyterhub_bkai import nodeproxy
from jupyterhub_bkai._version import __version__
from jupyterhub_bkai.supervise.part import Recipe
from jupyterhub_bkai.supervise.preflight import LOOPBACK, Plan

PROXY, SERVICE, HUB = "proxy", "service", "hub"


#: What runs as the service: `python -m` this.
SERVICE_MODULE = "jupyterhub_bkai.app"


def recipes(plan: Plan, proxy_program: Sequence[str]) -> tuple[Recipe, Recipe, Recipe]:
    """The three parts, in the order in which they are started."""
    return _proxy(plan, proxy_program), _service(plan), _hub(plan)


def _proxy(plan: Plan, program: Sequence[str]) -> Recipe:
    api = urlsplit(plan.addresses.proxy_api_url)
    return Recipe(
        name=PROXY,
        title="proxy",
        program=tuple(program),
        arguments=(
            "--ip",
            plan.host,
            "--port",
            str(plan.port),
            "--api-ip",
            LOOPBACK,
            "--api-port",
            str(api.port),
            # Pages of its own, not the hub's: they must be there while the hub restarts.
            "--error-path",
            str(nodeproxy.ERROR_PAGES),
            "--log-level",
            "info",
            *(("--host-routing",) if plan.subdomain_host else ()),
        ),
        environment={"CONFIGPROXY_AUTH_TOKEN": plan.secrets.proxy_token, "NO_COLOR": "1"},
    )


def _service(plan: Plan) -> Recipe:
    return _python(plan, SERVICE, "service", SERVICE_MODULE, "--data", str(plan.folder.root))


def _hub(plan: Plan) -> Recipe:
    return _python(plan, HUB, "hub", "jupyterhub", "-f", str(plan.folder.hub_config))


def _python(plan: Plan, name: str, title: str, module: str, *arguments: str) -> Recipe:
    return Recipe(
        name=name,
        title=title,
        program=(sys.executable, "-m"),
        arguments=(module, *arguments),
        environment={"PYTHONUNBUFFERED": "1"},
        compared=(
            __version__,
            repr(plan.addresses),
            *plan.secrets.all(),
            str(plan.dummy_login),
            str(plan.subdomain_host),
            # A hub that is to store a first password has to be started for it.
            *([plan.first_password] if name == HUB and plan.first_password else []),
        ),
    )
