"""`voicestyle verify`: whether image files say in their metadata that they were generated."""

import json
import sys
from pathlib import Path

import click

from voicestyle.images import read_digital_source_type


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each image.")
def verify(images: tuple[Path, ...], as_json: bool) -> None:
    """Read the mark of generated images in IMAGES: PNG, JPEG or WebP files.

    The mark is the IPTC digital source type in the file's XMP packet. Every image of VoiceStyle has it, and so do
    images of other generators. Software that rewrites a file may remove it, so a missing mark proves nothing.

    The exit code is 0 if every image has the mark, 1 if one has none, and 2 if one cannot be read.
    """
    found = {path: read_digital_source_type(path.read_bytes(), str(path)) for path in images}
    for path, source_type in found.items():
        if as_json:
            values = {"image": str(path), "generated": source_type is not None, "digital_source_type": source_type}
            click.echo(json.dumps(values, ensure_ascii=False))
        else:
            click.echo(f"{path}: {'generated, ' + source_type if source_type else 'no mark of a generated image'}")
    if None in found.values():
        sys.exit(1)
