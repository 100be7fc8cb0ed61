"""`voicestyle serve`: an archive on TorchServe, in the foreground."""

import logging
import sys
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

import click

from voicestyle.cli.build import ARCHIVE
from voicestyle.serving import DrainOptions, Ports, TorchServe
from voicestyle.serving import serve as serve_archive
from voicestyle.serving.ports import HOST

PORT_OPTIONS: Final = {
    "inference": ("--port", "HTTP."),
    "grpc_inference": ("--grpc-port", "gRPC."),
    "operations": ("--operations-port", "/ready, /live and /metrics."),
    "management": ("--management-port", "TorchServe's management API, on loopback."),
    "grpc_management": ("--grpc-management-port", "The same over gRPC, on loopback."),
    "metrics": ("--metrics-port", "TorchServe's own metrics, on loopback."),
}
SECONDS: Final = click.FloatRange(min=0)


def _port_options(command: Callable[..., None]) -> Callable[..., None]:
    for port, (option, text) in reversed(PORT_OPTIONS.items()):
        default, number = getattr(Ports, port), click.IntRange(1, 65535)
        command = click.option(option, port, default=default, show_default=True, type=number, help=text)(command)
    return command


def _ipv4(_: click.Context, option: click.Parameter, value: str) -> str:
    try:
        return str(IPv4Address(value))
    except ValueError as error:
        raise click.BadParameter(f"must be an IPv4 address, got {value!r}", param=option) from error


def _host_option(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(name, default=HOST, show_default=True, callback=_ipv4, help=text)


@click.command()
@click.option(
    "--archive",
    default=ARCHIVE,
    show_default=True,
    type=click.Path(path_type=Path),
    help="The file that `voicestyle archive` wrote.",
)
@_host_option("--host", "Address of the HTTP and gRPC ports.")
@_host_option("--operations-host", "Address of the operations port.")
@_port_options
@click.option(
    "--drain-seconds",
    default=DrainOptions.seconds,
    show_default=True,
    type=SECONDS,
    help="Longest time for admitted requests to finish after SIGTERM.",
)
@click.option(
    "--drain-grace",
    default=DrainOptions.grace,
    show_default=True,
    type=SECONDS,
    help="Seconds to keep accepting requests after SIGTERM, so that load balancers notice.",
)
def serve(
    archive: Path, host: str, operations_host: str, drain_seconds: float, drain_grace: float, **ports: int
) -> None:
    """Serve an archive on TorchServe until SIGTERM or Ctrl-C, then finish the admitted requests.

    A second signal stops at once. Put a proxy in front (deploy/nginx): TorchServe has no usable authentication, and
    its ports offer more than predictions. docs/operations.md has the details.
    """
    _log_to_stdout()
    try:
        checked = Ports(**ports)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    status = serve_archive(
        archive,
        ports=checked,
        host=host,
        operations_host=operations_host,
        draining=DrainOptions(drain_seconds, drain_grace),
        on_ready=_announce,
    )
    sys.exit(status)


def _log_to_stdout() -> None:
    # In the format of TorchServe's lines (log4j2.xml), which go to the same output.
    formatter = logging.Formatter("%(asctime)s %(levelname)-5s serve %(message)s")
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    output = logging.StreamHandler(sys.stdout)
    output.setFormatter(formatter)
    logging.basicConfig(handlers=[output], level=logging.INFO)


def _announce(server: TorchServe) -> None:
    click.echo(
        f"ready: curl -X POST -H 'Content-Type: application/octet-stream' "
        f"--data-binary @samples/slt.wav {server.url} -o face.png"
    )
