"""The supervisor behind `bkai up`: proxy, service and hub as siblings that outlive each other.

The walk is in `supervisor`, what is decided before it in `preflight`; `part` is one process, `keeper` and
`ending` are the rules.
"""

from jupyterhub_bkai.supervise.supervisor import up

__all__ = ["up"]
