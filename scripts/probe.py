"""`python scripts/probe.py [URL]`: print what a probe of `voicestyle serve` answers; exit with 1 unless it is a yes.

For a container's health check: standard library alone, so that it starts in no time.
"""

import sys
import urllib.error
import urllib.request

READY = "http://127.0.0.1:8083/ready"
SECONDS = 8


def main() -> int:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy before this very machine
    try:
        with direct.open(sys.argv[1] if len(sys.argv) > 1 else READY, timeout=SECONDS) as answer:
            print(answer.read().decode().strip())
            return 0
    except urllib.error.HTTPError as error:
        print(error.read().decode().strip())
    except OSError as error:
        print(f"no answer: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
