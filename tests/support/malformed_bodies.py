"""Malformed request bodies: mutated audio files, files with wrong headers, and files of other types.

The same seed gives the same bodies, except the random serial number that libsndfile writes into each Ogg stream.
"""

import io
import json
import random
import struct
import zipfile

import numpy as np
import soundfile

RATE = 16_000
MAGICS = (
    *(b"RIFF\xff\xff\xff\xffWAVE", b"fLaC", b"OggS", b"ID3\x04\x00\x00"),
    *(b"\xff\xfb\x90\x64", b"FORM", b".snd", b"caff"),
)
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def encodings(speech):
    """(name, bytes) of the speech in every format that soundfile writes."""
    # SD2 writes its header to a separate file in the current folder.
    for name in sorted(soundfile.available_formats().keys() - {"SD2"}):
        for subtype in sorted(soundfile.available_subtypes(name)):
            for channels, rate in ((1, RATE), (2, 48_000)):
                file = io.BytesIO()
                samples = np.repeat(speech[:, None], channels, axis=1)
                try:
                    soundfile.write(file, samples, rate, format=name, subtype=subtype)
                except (soundfile.LibsndfileError, ValueError):
                    continue  # not every format supports every rate
                yield f"{name} {subtype} {channels}", file.getvalue()


def wav(speech, rate=RATE, **form):
    file = io.BytesIO()
    soundfile.write(file, speech, rate, **{"format": "WAV", "subtype": "FLOAT"} | form)
    return file.getvalue()


def invalid(speech, source):
    """(name, bytes) of files with invalid samples or headers."""
    spoilt = speech.copy()
    spoilt[source.randrange(len(spoilt))] = source.choice([np.nan, np.inf, -np.inf, 3e38])
    yield "NaN", wav(spoilt)
    yield "all NaN", wav(np.full_like(speech, np.nan))
    yield "loud", wav(speech * np.float32(source.choice([1e-30, 1e10, 1e30])))
    yield "96 kHz, 8 channels", wav(np.repeat(speech[:, None], 8, axis=1), 96_000, subtype="PCM_24")
    yield "no samples", wav(speech[:0])
    yield "one sample", wav(speech[:1])
    yield "a constant", wav(np.full_like(speech, source.uniform(-1, 1)))
    yield "noise", wav(np.random.default_rng(source.randrange(2**32)).standard_normal(RATE).astype(np.float32))
    rate, channels = source.choice([0, 1, 7, 2**31 - 1, 2**32 - 1]), source.choice([0, 1, 255, 65_535])
    data = struct.pack("<h", 1) * 4000
    yield "a wrong rate", riff(struct.pack("<HHIIHH", 1, 1, rate, 2 * rate & 0xFFFFFFFF, 2, 16), data)
    yield "a wrong number of channels", riff(struct.pack("<HHIIHH", 1, channels, RATE, 2 * RATE, 2, 16), data)
    yield "a wrong size", riff(struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16), data, source.choice(EXTREMES))
    yield "a wrong format", riff(struct.pack("<HHIIHH", source.randrange(65_536), 1, RATE, 99, 3, 13), data)
    hours = bytearray(encoded(speech, "FLAC"))
    hours[21:26] = b"\xff\xff\xff\xff\xff"  # the low bits of STREAMINFO's count of samples
    yield "hours of FLAC", bytes(hours)


def riff(fmt, data, size=None):
    """A WAV file from its format chunk and its data; `size` replaces the data size in the header."""
    size = len(data) if size is None else size
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


def encoded(speech, name):
    file = io.BytesIO()
    soundfile.write(file, speech, RATE, format=name)
    return file.getvalue()


def other_types(source):
    """(name, bytes) of files that are no audio."""
    noise = source.randbytes(source.randrange(1, 20_000))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(zipfile.ZipInfo("voice.wav"), bytes(5_000_000), zipfile.ZIP_DEFLATED)
    box = b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41" + struct.pack(">I", len(noise) + 8) + b"mdat"
    yield "empty", b""
    yield "zeros", bytes(source.randrange(1, 100_000))
    yield "random", noise
    yield "zip", archive.getvalue()
    yield "mp4", box + noise
    yield "text", b"This is no voice. " * source.randrange(1, 1000)
    yield "html", b"<!doctype html><audio src=voice.wav>" + noise
    yield "json", json.dumps({"audio": "UklGRg=="}).encode()
    yield "png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + noise
    yield "elf", b"\x7fELF\x02\x01\x01" + noise
    for magic in MAGICS:
        yield f"{magic[:4]!r} and noise", magic + noise


def mutated(body, source):
    """(how, bytes): a body with one random change."""
    body = bytearray(body)
    at = source.randrange(len(body))
    near = source.randrange(min(len(body), 128))
    match source.randrange(7):
        case 0:
            return "cut short", bytes(body[:at])
        case 1:
            return "header cut short", bytes(body[:near])
        case 2:
            for _ in range(source.randrange(1, 50)):
                body[source.randrange(len(body))] ^= 1 << source.randrange(8)
            return "bits flipped", bytes(body)
        case 3:
            order = source.choice("<>")
            body[near : near + 4] = struct.pack(f"{order}I", source.choice(EXTREMES))
            return f"extreme at {near}", bytes(body)
        case 4:
            return "beginning removed", bytes(body[near:])
        case 5:
            return "piece repeated", bytes(body[:at] + body[near:at] + body[at:])
        case _:
            body[at : at + 500] = source.randbytes(500)
            return "noise inserted", bytes(body)


def malformed(files, speech, count, seed):
    """`count` pairs (name, bytes), made from `files`, bytes by name, and from `speech`."""
    source = random.Random(seed)
    files = [*files.items(), *encodings(speech)]
    made = 0
    while made < count:
        name, body = source.choice(files)
        how, changed = mutated(body, source)
        round_of = [(name, body), (f"{name}, {how}", changed)]
        for _ in range(6):
            name, body = source.choice(files)
            how, changed = mutated(body, source)
            round_of.append((f"{name}, {how}", changed))
        round_of += [source.choice(list(invalid(speech, source))), source.choice(list(other_types(source)))]
        yield from round_of[: count - made]
        made += len(round_of)
