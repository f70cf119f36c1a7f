"""From a grant to a running session and back, with a real hub."""

import pytest

from tests.spawner.fake_service import FakeService
from tests.spawner.hubs import RunningHub

pytestmark = pytest.mark.hub


async def test_a_grant_starts_a_session_and_a_stop_gives_it_back(
    hub: RunningHub, service: FakeService
) -> None:
    answer = await hub.ask("ada", "first", {"version": "plain/1"})
    assert answer.status_code == 202
    await hub.ready("ada", "first")
    [asked] = service.heard("acquire")
    assert asked == {
        "user": "ada",
        "server": "first",
        "groups": [],
        "admin": False,
        "options": {"version": "plain/1"},
    }
    started = await service.hears("started")
    assert started["handle"]["kind"] == "process"
    await service.hears("ready")
    assert (await hub.drop("ada", "first")).status_code in (202, 204)
    await hub.gone("ada", "first")
    released = await service.hears("release")
    assert released == {"lease": started["lease"], "cause": "stopped", "exit_code": 0}
