"""Keeps parts running: whichever ends is started again, slower each time it ends soon.

Owns that decision and the sentence about it.
"""

import asyncio
from collections.abc import Callable

from jupyterhub_bkai.supervise.console import Console
from jupyterhub_bkai.supervise.identity import gone
from jupyterhub_bkai.supervise.part import Part

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
#: A part that has run for this long was healthy: its next pause is the shortest again.
HEALTHY_S = 60.0


async def keep(part: Part, console: Console, *, restarted: Callable[[], None]) -> None:
    """Wait for a running part's end and start it again, for ever; call `restarted` after each start."""
    loop = asyncio.get_running_loop()
    pause = FIRST_PAUSE_S
    while True:
        began = loop.time()
        if part.identity is not None:
            await gone(part.identity)
        if loop.time() - began >= HEALTHY_S:
            pause = FIRST_PAUSE_S
        console.say(
            f"The {part.recipe.title} {part.how_it_ended()}; starting it again in {pause:g} s. "
            f"Sessions keep running. Its log: {part.log}"
        )
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)
        try:
            part.start()
        except OSError as error:
            console.say(f"The {part.recipe.title} cannot be started ({error.strerror}).")
            continue
        restarted()
