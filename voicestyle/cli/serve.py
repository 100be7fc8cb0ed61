"""`voicestyle serve`: an archive on TorchServe, in the foreground."""

import sys
from pathlib import Path

import click

from voicestyle.serving import Ports, TorchServe
from voicestyle.serving import serve as serve_archive


@click.command()
@click.option(
    "--archive",
    default=Path("model_store/voicestyle.mar"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="What `voicestyle archive` wrote.",
)
@click.option("--port", default=Ports.inference, show_default=True, type=click.IntRange(1, 65535), help="HTTP.")
def serve(archive: Path, port: int) -> None:
    """Serve an archive on TorchServe until SIGTERM or Ctrl-C, on loopback.

    Put a proxy before it: TorchServe knows no authentication worth the name.
    """
    sys.exit(serve_archive(archive, ports=Ports(inference=port), on_ready=_announce))


def _announce(server: TorchServe) -> None:
    click.echo(
        f"ready: curl -X POST -H 'Content-Type: application/octet-stream' "
        f"--data-binary @samples/slt.wav {server.url} -o face.png"
    )
