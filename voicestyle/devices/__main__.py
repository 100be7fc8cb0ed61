"""Check in a process of its own that a CUDA device can be used: `python -m voicestyle.devices`.

`voicestyle serve` runs it before it starts TorchServe. Exit code 2 with one line on standard output if not.
"""

import sys

from voicestyle.devices.choice import CUDA, DeviceError, choose_device
from voicestyle.devices.preparation import prepare_device


def main() -> int:
    """Choose and prepare the first GPU; return the exit code."""
    try:
        prepare_device(choose_device(CUDA, None))
    except DeviceError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
