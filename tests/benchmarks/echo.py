"""A peer for tests: answers commands as the benchmarks' peers do, or misbehaves on request."""

import json
import sys


def main() -> None:
    """Echo fields; fail, fall silent or end when told to."""
    for line in sys.stdin:
        command = json.loads(line)
        match command.pop("do"):
            case "echo":
                print(json.dumps(command), flush=True)
            case "fail":
                print(json.dumps({"error": "as asked"}), flush=True)
            case "hush":
                continue
            case "end":
                return


if __name__ == "__main__":
    main()
