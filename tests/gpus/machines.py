"""Descriptions of machines for the mock of NVIDIA's library, in its language (tests/native/mock_nvml.c)."""

H200_PROFILES = """\
profile 0 19 1 16 16384 7 1 0,1,2,3,4,5,6 1g.18gb
profile 7 20 1 16 16384 1 1 0,1,2,3,4,5,6 1g.18gb+me
profile 9 15 1 26 33280 4 2 0,2,4,6 1g.35gb
profile 1 14 2 32 33280 3 2 0,2,4 2g.35gb
profile 2 9 3 60 71424 2 4 0,4 3g.71gb
profile 3 5 4 64 71424 1 4 0 4g.71gb
profile 4 0 7 132 143360 1 8 0 7g.141gb
"""

# Same numbers of profiles, other cuts: nothing may be taken from one card to another.
A30_PROFILES = """\
profile 0 14 1 14 5952 4 1 0,1,2,3 1g.6gb
profile 1 5 2 28 11968 2 2 0,2 2g.12gb
profile 3 0 4 56 24064 1 4 0 4g.24gb
"""


def machine(*cards: str, also: str = "") -> str:
    """A machine with these cards; `also` are lines about the machine itself."""
    return "\n".join(["driver 580.95.05", "nvml 13.580.95.05", "cuda 13000", also, *cards])


def h200(uuid: str, *lines: str, mig: bool = False) -> str:
    """An H200, in MIG mode or not."""
    return (
        f"gpu {uuid}\nname NVIDIA H200\nmemory 143771 619 0\ncores 16896\ncapability 9 0\nnuma 1\n"
        f"mig {int(mig)} {int(mig)}\n{H200_PROFILES}" + "\n".join(lines)
    )


def a30(uuid: str, *lines: str) -> str:
    """An A30 in MIG mode."""
    head = f"gpu {uuid}\nname NVIDIA A30\nmemory 24576 512 0\ncores 3584\ncapability 8 0\nmig 1 1\n{A30_PROFILES}"
    return head + "\n".join(lines)


def l4(uuid: str, *lines: str) -> str:
    """An L4, which knows no MIG."""
    head = f"gpu {uuid}\nname NVIDIA L4\nmemory 23034 460 0\ncores 7424\ncapability 8 9\n"
    return head + "\n".join(lines)
