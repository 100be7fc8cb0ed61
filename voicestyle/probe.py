"""`python -m voicestyle.probe [URL]`: print a probe's response from `voicestyle serve`; exit with 1 unless it is 200.

For the health check of a container. It imports the standard library alone, so it starts in milliseconds.
"""

import sys
import urllib.error
import urllib.request

READY = "http://127.0.0.1:8083/ready"
SECONDS = 8


def main() -> int:
    """Send the probe and return the exit status."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
    try:
        with direct.open(sys.argv[1] if len(sys.argv) > 1 else READY, timeout=SECONDS) as response:
            print(response.read().decode().strip())
            return 0
    except urllib.error.HTTPError as error:
        print(error.read().decode().strip())
    except OSError as error:
        print(f"no response: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
