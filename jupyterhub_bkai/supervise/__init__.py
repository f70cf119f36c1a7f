"""The supervisor behind `bkai up`: proxy, service and hub as siblings that outlive each other.

`up` is the walk; `preflight` what is decided before it, `part` one process, `keeper` and `ending` the rules.
"""

from jupyterhub_bkai.supervise.up import up

__all__ = ["up"]
