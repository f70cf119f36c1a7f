"""`bkai admin …`: what administrators do: rules, drains, holds, priorities."""

import click

from jupyterhub_bkai.cli.rules import apply, rules
from jupyterhub_bkai.cli.settings import with_settings


@click.group()
@with_settings
def admin() -> None:
    """What administrators do: policies, and more."""


admin.add_command(rules)
admin.add_command(apply)
