"""`voicestyle serve`: an archive on TorchServe, in the foreground."""

import logging
import sys
from ipaddress import IPv4Address
from pathlib import Path

import click

from voicestyle.serving import DrainOptions, Ports, TorchServe
from voicestyle.serving import serve as serve_archive
from voicestyle.serving.ports import HOST

PORT = click.IntRange(1, 65535)
SECONDS = click.FloatRange(min=0)


def _ipv4(_: click.Context, option: click.Parameter, value: str) -> str:
    try:
        return str(IPv4Address(value))
    except ValueError as error:
        raise click.BadParameter(f"must be an IPv4 address, got {value!r}", param=option) from error


@click.command()
@click.option(
    "--archive",
    default=Path("model_store/voicestyle.mar"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="What `voicestyle archive` wrote.",
)
@click.option("--port", default=Ports.inference, show_default=True, type=PORT, help="HTTP.")
@click.option("--grpc-port", default=Ports.grpc_inference, show_default=True, type=PORT, help="gRPC.")
@click.option("--host", default=HOST, show_default=True, callback=_ipv4, help="Where HTTP and gRPC listen.")
@click.option(
    "--operations-port", default=Ports.operations, show_default=True, type=PORT, help="/ready, /live and /metrics."
)
@click.option("--operations-host", default=HOST, show_default=True, callback=_ipv4, help="Where that port listens.")
@click.option(
    "--drain-seconds",
    default=DrainOptions.seconds,
    show_default=True,
    type=SECONDS,
    help="How long a stop waits for the requests that were taken in.",
)
@click.option(
    "--drain-grace",
    default=DrainOptions.grace,
    show_default=True,
    type=SECONDS,
    help="How long before that a stop goes on taking requests in, so that a load balancer notices.",
)
def serve(
    archive: Path,
    port: int,
    grpc_port: int,
    host: str,
    operations_port: int,
    operations_host: str,
    drain_seconds: float,
    drain_grace: float,
) -> None:
    """Serve an archive on TorchServe until SIGTERM or Ctrl-C, then finish what was taken in; twice stops at once.

    Put a proxy before it (deploy/nginx): TorchServe knows no authentication worth the name, and its ports offer more
    than they should. docs/operations.md has the rest.
    """
    _log()
    try:
        ports = Ports(inference=port, grpc_inference=grpc_port, operations=operations_port)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    status = serve_archive(
        archive,
        ports=ports,
        host=host,
        operations_host=operations_host,
        draining=DrainOptions(drain_seconds, drain_grace),
        on_ready=_announce,
    )
    sys.exit(status)


def _log() -> None:
    # As log4j2.xml writes TorchServe's lines, between which these stand.
    lines = logging.Formatter("%(asctime)s %(levelname)-5s serve %(message)s")
    lines.default_time_format = "%Y-%m-%dT%H:%M:%S"
    output = logging.StreamHandler(sys.stdout)
    output.setFormatter(lines)
    logging.basicConfig(handlers=[output], level=logging.INFO)


def _announce(server: TorchServe) -> None:
    click.echo(
        f"ready: curl -X POST -H 'Content-Type: application/octet-stream' "
        f"--data-binary @samples/slt.wav {server.url} -o face.png"
    )
