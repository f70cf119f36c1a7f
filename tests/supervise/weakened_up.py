"""`bkai up` made careless on purpose, in one way at a time: what the check for leaks must find.

`python weakened_up.py WAY …` with the arguments of `bkai up` behind.
"""

import runpy
import sys
from dataclasses import replace
from typing import Any

from jupyterhub_bkai.supervise import parts, preflight, supervisor
from jupyterhub_bkai.supervise.part import Recipe

MODULES: Any = {"preflight": preflight, "supervisor": supervisor}


def in_a_command_line() -> None:
    careful = parts._hub

    def careless(plan: preflight.Plan) -> Recipe:
        recipe = careful(plan)
        token = f"--ConfigurableHTTPProxy.auth_token={plan.secrets.proxy_token}"
        return replace(recipe, arguments=(*recipe.arguments, token))

    parts._hub = careless


def in_an_open_file() -> None:
    careful = MODULES["preflight"].write_addresses

    def careless(folder: Any, value: Any) -> None:
        careful(folder, value)
        copy = folder.root / "secrets.json.backup"
        copy.write_bytes(folder.secrets.read_bytes())
        copy.chmod(0o644)

    MODULES["preflight"].write_addresses = careless


def in_a_log() -> None:
    careful = MODULES["supervisor"].recipes

    def careless(plan: preflight.Plan, program: Any) -> Any:
        with (plan.folder.log / "hub.log").open("a") as log:
            log.write(f"starting with {plan.secrets.all()}\n")
        return careful(plan, program)

    MODULES["supervisor"].recipes = careless


def in_a_session() -> None:
    """The hub's own environment is what sessions get a part of."""
    careful = parts._hub

    def careless(plan: preflight.Plan) -> Recipe:
        recipe = careful(plan)
        return replace(recipe, environment={**recipe.environment, "LANG": plan.secrets.service_token})

    parts._hub = careless


if __name__ == "__main__":
    way = sys.argv.pop(1)
    {"argument": in_a_command_line, "file": in_an_open_file, "log": in_a_log, "session": in_a_session}[way]()
    runpy.run_module("jupyterhub_bkai.supervise", run_name="__main__")
