"""Added to the handler of an archive: a worker whose device fails for good at one seed, if a file exists.

The worker runs on a CPU, which it takes for a GPU where it judges errors.
"""

import tempfile
from pathlib import Path

from voicestyle import pipeline
from voicestyle.devices import failures

POISONED_SEED = 13
POISON = "poison"  # the file in the temporary folder; the failure removes it, so that the next worker is sound
TEXT = "failed in the TorchScript interpreter.\nRuntimeError: CUDA error: an illegal memory access was encountered"

sound_render_all = pipeline.Pipeline.render_all
has_failed = False


def use(device=None):
    if has_failed:
        raise RuntimeError(TEXT)


def render_all(self, requests):
    global has_failed
    poison = Path(tempfile.gettempdir()) / POISON
    if poison.exists() and any(request.prepared.settings.seed == POISONED_SEED for request in requests):
        poison.unlink()
        has_failed = True
    use()
    return sound_render_all(self, requests)


def device_failed(error, device):
    return failures.device_failed(error, "cuda:0", use)


def install():
    """Called in the worker alone, because it changes the pipeline of its process."""
    pipeline.Pipeline.render_all = render_all
    pipeline.device_failed = device_failed
