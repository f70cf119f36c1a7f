"""`python -m benchmarks [NAME …]`."""

import importlib
import json
import os
import sys

NAMES = ("fit", "openb", "grants", "why", "start", "service")


def main() -> int:
    wanted = sys.argv[1:] or NAMES
    for name in wanted:
        if name not in NAMES:
            print(f"There is no benchmark {name!r}; there are {', '.join(NAMES)}.", file=sys.stderr)
            return 2
    for name in wanted:
        load = os.getloadavg()[0]
        result = importlib.import_module(f"benchmarks.{name}").run()
        print(
            json.dumps({"benchmark": name, **result, "cores": os.cpu_count(), "load_before": round(load, 2)})
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
