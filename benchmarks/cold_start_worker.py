"""One cold start, step by step, in the process that it is the start of. Prints seconds as a line of JSON.

python -m benchmarks.cold_start_worker BUNDLE SECONDS_SINCE_THE_EPOCH_AT_ITS_START
"""

import importlib
import json
import os
import sys
import time
from itertools import pairwise

BEGAN = time.time()


def main() -> None:
    """Import, load and warm up as the handler of the archive does."""
    from pathlib import Path

    folder, started = Path(sys.argv[1]), float(sys.argv[2])
    marks = [("interpreter", started), ("torch", BEGAN)]

    import torch

    marks.append(("other imports", time.time()))

    importlib.import_module("handlers.voicestyle_handler")
    from voicestyle.pipeline import Pipeline

    marks.append(("load", time.time()))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    warm_up = Pipeline.warm_up
    warming: list[float] = []

    def timed(self: Pipeline) -> None:
        warming.append(time.time())
        warm_up(self)

    Pipeline.warm_up = timed
    Pipeline.load(folder)
    marks += [("warm-up", warming[0]), ("", time.time())]
    print(json.dumps({name: after - at for (name, at), (_, after) in pairwise(marks)}))


if __name__ == "__main__":
    main()
