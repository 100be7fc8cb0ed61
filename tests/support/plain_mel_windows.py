"""A simple reference of GE2E's input: sums of sines and cosines in float64, one frame and one band at a time."""

import numpy as np

RATE, WIDTH, HOP, BANDS, FRAMES, STEP = 16_000, 400, 160, 40, 160, 77
# Slaney's mel scale, as librosa documents it: 200/3 Hz a mel up to 1,000 Hz; above, 27 mel for a factor of 6.4.
KNEE = 15.0


def to_hz(mel):
    return mel * 200 / 3 if mel < KNEE else 1000.0 * 6.4 ** ((mel - KNEE) / 27)


def triangle(hz, low, middle, high):
    """The height at `hz` of the triangle of area 1 over low, middle, high."""
    if not low < hz < high:
        return 0.0
    slope = (hz - low) / (middle - low) if hz <= middle else (high - hz) / (high - middle)
    return slope * 2 / (high - low)


def mel_bank():
    top = KNEE + 27 * np.log(8000 / 1000) / np.log(6.4)
    edges = [to_hz(top * i / (BANDS + 1)) for i in range(BANDS + 2)]
    bins = [RATE / WIDTH * k for k in range(WIDTH // 2 + 1)]
    return np.array([[triangle(hz, *edges[band : band + 3]) for hz in bins] for band in range(BANDS)])


def frame_power(samples, number):
    """The power spectrum [201] of the frame centred at sample 160 · number, with zeros outside the recording."""
    places = HOP * number - WIDTH // 2 + np.arange(WIDTH)
    inside = (places >= 0) & (places < len(samples))
    values = np.where(inside, samples[places.clip(0, len(samples) - 1)], 0.0)
    values = values * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WIDTH) / WIDTH))
    angles = 2 * np.pi * np.outer(np.arange(WIDTH // 2 + 1), np.arange(WIDTH)) / WIDTH
    return (np.cos(angles) @ values) ** 2 + (np.sin(angles) @ values) ** 2


def windows_of(count):
    """First frames of the windows of a recording of `count` samples, at least a window long."""
    starts = [0]
    while (count - (starts[-1] + STEP) * HOP) / (FRAMES * HOP) >= 0.75:
        starts.append(starts[-1] + STEP)
    return starts


def plain_features(samples):
    """Samples [n] to mel power spectra [40, T], up to the end of the last window, float64."""
    samples = np.asarray(samples, np.float64)
    level = 20 * np.log10(np.sqrt(np.mean(samples**2)))
    if level < -30:
        samples = samples * 10 ** ((-30 - level) / 20)
    if len(samples) < FRAMES * HOP:
        samples = np.array([samples[i % len(samples)] for i in range(FRAMES * HOP)])
    last = windows_of(len(samples))[-1]
    bank = mel_bank()
    return np.stack([bank @ frame_power(samples, number) for number in range(last + FRAMES)], axis=1)
