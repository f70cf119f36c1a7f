"""The tables. Times are milliseconds since the epoch; amounts are integers; shares are fractions as text ("1/4").

`requests` holds what was asked and where it stands, `leases` what was granted, `slices` the parts of devices a lease
holds, `transitions` every move, `intervals` what is metered. `rules` holds groups, policies and presets, `switches`
what is closed by hand, `changes` who changed either when. `notices` holds what people are told,
`deliveries` by which ways that went out, `choices` what they want to be told.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

LIVE_STATES = "('queued','granted','pulling','starting','running','stopping')"

requests = Table(
    "requests",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("ord", BigInteger, nullable=False, unique=True),
    Column("user_name", String(255), nullable=False),
    Column("server", String(255), nullable=False),
    Column("hub_groups", Text, nullable=False),
    Column("admin", Boolean, nullable=False),
    Column("group_name", String(255), nullable=False),
    Column("version", String(255), nullable=False),
    Column("wish", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("asked_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("cause", String(32)),
    Column("message", Text),
    Column("keepalive_s", Integer),
    Column("remove_server", Boolean, nullable=False, server_default=text("false")),
)
Index("requests_by_user", requests.c.user_name, requests.c.asked_ms)
# A server has at most one live request: the database itself refuses a second one.
_live = text(f"state IN {LIVE_STATES}")
Index(
    "requests_live",
    requests.c.user_name,
    requests.c.server,
    unique=True,
    sqlite_where=_live,
    postgresql_where=_live,
)

leases = Table(
    "leases",
    metadata,
    Column("id", String(26), ForeignKey("requests.id"), primary_key=True),
    Column("node", String(255), nullable=False),
    Column("cpu_milli", BigInteger, nullable=False),
    Column("memory_mib", BigInteger, nullable=False),
    Column("granted_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("deadline_ms", BigInteger),
    Column("released_ms", BigInteger),
    Column("handle", Text),
)

slices = Table(
    "slices",
    metadata,
    Column("lease", String(26), ForeignKey("leases.id"), primary_key=True),
    Column("device", String(255), primary_key=True),
    Column("device_index", Integer, nullable=False),
    Column("slot", String(64), nullable=False),
    Column("model", String(255), nullable=False),
    Column("share", String(32), nullable=False),
    Column("memory_mib", BigInteger, nullable=False),
    Column("sm_milli", BigInteger, nullable=False),
    Column("mig_profile", String(64)),
    Column("mig_start", Integer),
    Column("mig_size", Integer),
)
Index("slices_by_device", slices.c.device)

transitions = Table(
    "transitions",
    metadata,
    Column("n", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("request", String(26), ForeignKey("requests.id"), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("source", String(16)),
    Column("target", String(16), nullable=False),
    Column("who", String(255), nullable=False),
    Column("why", Text, nullable=False),
)
Index("transitions_by_request", transitions.c.request, transitions.c.n)

intervals = Table(
    "intervals",
    metadata,
    Column("lease", String(26), ForeignKey("leases.id"), primary_key=True),
    Column("user_name", String(255), nullable=False),
    Column("project", String(255)),
    Column("group_name", String(255), nullable=False),
    Column("version", String(255), nullable=False),
    Column("cpu_milli", BigInteger, nullable=False),
    Column("memory_mib", BigInteger, nullable=False),
    Column("gpu_memory_mib", BigInteger, nullable=False),
    Column("share", String(32), nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("opened_boot_ns", BigInteger, nullable=False),
    Column("boot_id", String(36), nullable=False),
    Column("closed_ms", BigInteger),
    Column("duration_ms", BigInteger),
    Column("measured_kib", BigInteger),
)
Index("intervals_by_time", intervals.c.opened_ms)

# `body` is what counts (null: removed by hand), `seeded` what the settings file had when it was last taken from there.
rules = Table(
    "rules",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("body", Text),
    Column("seeded", Text),
)

# A node or device that takes nothing new, a group in which nothing new starts.
switches = Table(
    "switches",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("since_ms", BigInteger, nullable=False),
    Column("who", String(255), nullable=False),
    Column("why", Text, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("n", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("who", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", String(255), nullable=False),
    Column("body", Text),
)

# Of the deadline, warnings `step_s` before it and earlier are done; `body` is JSON with all that a delivery needs.
notices = Table(
    "notices",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("user_name", String(255), nullable=False),
    Column("request", String(26), nullable=False),
    Column("deadline_ms", BigInteger),
    Column("step_s", Integer),
    Column("body", Text, nullable=False),
)
Index("notices_by_request", notices.c.request)

# An outbox: `state` is waiting, delivered or failed, and what waits is tried at `next_ms`.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("notice", String(26), ForeignKey("notices.id"), nullable=False),
    Column("way", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_ms", BigInteger, nullable=False),
    Column("done_ms", BigInteger),
    Column("error", Text),
)
Index("deliveries_by_state", deliveries.c.state, deliveries.c.way, deliveries.c.next_ms)
Index("deliveries_by_notice", deliveries.c.notice)

choices = Table(
    "choices",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("body", Text, nullable=False),
)
