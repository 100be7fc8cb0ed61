"""The input of GE2E: mel power spectra of speech, without a logarithm, cut and padded to whole windows.

    volume   raised to −30 dBFS (root mean square over the recording) where it is below, never lowered
    frames   400 samples = 25 ms, periodic Hann window, centred every 160 samples = 10 ms; zeros before and after
    filters  40 triangles between 42 edges, evenly spaced from 0 to 8,000 Hz on Slaney's mel scale, each of area 1
    windows  160 frames, one every 77 frames; the last one counts if the recording covers 75 % of it

Slaney's mel scale (Auditory Toolbox, 1998) is linear up to 1,000 Hz and logarithmic above.
"""

from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cmpc2.audio import SAMPLE_RATE

FFT: Final = 400
HOP: Final = 160
BANDS: Final = 40
WINDOW_FRAMES: Final = 160  # 1.6 s
WINDOW_STEP: Final = round(SAMPLE_RATE / 1.3 / HOP)  # 77 frames: 1.3 windows a second
COVERED_FRAMES: Final = WINDOW_FRAMES * 3 // 4
TARGET_RMS: Final = 10.0 ** (-30.0 / 20.0)  # −30 dBFS, of full scale 1
SILENT_RMS: Final = 1e-10  # below the rounding of 16 bits in a recording of any length
LINEAR_HZ: Final = 1000.0
HZ_PER_MEL: Final = 200.0 / 3.0
MELS_PER_DOUBLING: Final = 27.0 * np.log(2.0) / np.log(6.4)  # 27 mel from 1,000 to 6,400 Hz


class Ge2eFrontEnd(nn.Module):
    """Speech at 16 kHz, without its silence, to the features that `Ge2e` takes. Scriptable; on the device of its input.

    A recording shorter than a window is repeated up to one: the network was trained on whole windows of speech, and it
    reads a window to its end, so zeros after the speech would be the last that it hears.
    """

    window: Tensor
    filters: Tensor
    # TorchScript sees constants of the class, none of the module.
    fft: Final[int] = FFT
    hop: Final[int] = HOP
    frames: Final[int] = WINDOW_FRAMES
    step: Final[int] = WINDOW_STEP
    covered: Final[int] = COVERED_FRAMES
    target_rms: Final[float] = TARGET_RMS
    silent_rms: Final[float] = SILENT_RMS

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(FFT, periodic=True, dtype=torch.float64).float())
        self.register_buffer("filters", torch.from_numpy(mel_filters().astype(np.float32)))

    def forward(self, samples: Tensor) -> Tensor:
        """Samples [n], n ≥ 1, float32 in [-1, 1], to mel power spectra [1, 40, T], T = 160 + 77·k for k + 1 windows.

        Raises ValueError for another shape or dtype.
        """
        if samples.dim() != 1 or samples.size(0) == 0 or samples.dtype != torch.float32:
            raise ValueError(f"samples must be float32 [n], n ≥ 1; received {samples.dtype} {list(samples.shape)}")
        rms = samples.double().square().mean().sqrt()
        speech = samples * (self.target_rms / rms.clamp(min=self.silent_rms)).clamp(min=1.0).float()
        shortest = self.frames * self.hop
        if speech.size(0) < shortest:
            speech = speech.repeat(shortest // speech.size(0) + 1)[:shortest]
        further = (speech.size(0) // self.hop - self.covered) // self.step
        frames = self.frames + self.step * further
        # Exactly the samples of these frames: zeros before and after, or less than the recording.
        length = self.hop * (frames - 1) + self.fft
        before = self.fft // 2
        padded = F.pad(speech, [before, max(0, length - before - speech.size(0))])[:length]
        spectra = torch.fft.rfft(padded.unfold(0, self.fft, self.hop) * self.window)
        power = spectra.real.square() + spectra.imag.square()
        return torch.matmul(self.filters, power.t())[None]


def mel_filters() -> NDArray[np.float64]:
    """Weights [40, 201] of the power spectrum's bins in each band: triangles of area 1 over Hz."""
    edges = _hz(np.linspace(0.0, _mel(SAMPLE_RATE / 2), BANDS + 2))
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1)
    triangles: NDArray[np.float64] = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return triangles.clip(0.0) * 2.0 / (right - left)


def _mel(hz: float) -> float:
    """Slaney's mel of a frequency of at least 1,000 Hz."""
    return LINEAR_HZ / HZ_PER_MEL + MELS_PER_DOUBLING * float(np.log2(hz / LINEAR_HZ))


def _hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel to Hz."""
    above = mel - LINEAR_HZ / HZ_PER_MEL
    return np.where(above < 0.0, mel * HZ_PER_MEL, LINEAR_HZ * 2.0 ** (above / MELS_PER_DOUBLING))
