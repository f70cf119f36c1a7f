"""`configure(c)`: what a jupyterhub_config.py says so that its hub and our service work together.

Owns the hub's settings, the roles and the two service entries. What the administrator set before stays; what
they set afterwards wins anyway. Runs inside the hub process while it reads its configuration.
"""

from jupyterhub_bkai.hubconfig.configure import HubConfigError, configure

__all__ = ["HubConfigError", "configure"]
