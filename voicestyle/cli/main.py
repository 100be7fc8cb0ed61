"""The command group. Expected errors of all commands end in one line on stderr and exit code 2."""

import sys

import click

from voicestyle import __version__
from voicestyle.bank_builder import BankError
from voicestyle.cli.bank import bank, invert
from voicestyle.cli.build import archive, bundle
from voicestyle.cli.evaluate import evaluate
from voicestyle.cli.generate import generate
from voicestyle.cli.mapper import mapper
from voicestyle.cli.media import frames, log_mels
from voicestyle.cli.request import request
from voicestyle.cli.serve import serve
from voicestyle.cli.train import train
from voicestyle.cli.verify import verify
from voicestyle.errors import ArchiveError, BundleError, CaptureError, CheckpointError, InputError, ServerError
from voicestyle.evaluation.errors import EvaluationError
from voicestyle.photographs import PhotographError
from voicestyle.training.errors import TrainingError

EXPECTED = (
    ArchiveError,
    BankError,
    BundleError,
    CaptureError,
    CheckpointError,
    EvaluationError,
    InputError,
    PhotographError,
    ServerError,
    TrainingError,
    OSError,
)


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except EXPECTED as error:
            click.echo(f"voicestyle: {error}", err=True)
            sys.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Send a voice, get the face it suggests.

    \b
    Try it on this machine:
      voicestyle bundle demo                    build the demo bundle in bundles/demo
      voicestyle generate samples/slt.wav       make face.png from a voice, without a server
    Serve it:
      voicestyle archive                        pack bundle and code into model_store/voicestyle.mar
      voicestyle serve                          serve that archive on TorchServe, in the foreground
      voicestyle request samples/slt.wav        make face.png through the server; or
      curl -X POST -H "Content-Type: application/octet-stream" --data-binary @samples/slt.wav \\
           http://127.0.0.1:8080/predictions/voicestyle -o face.png

    A face is a guess about a voice, never a portrait of its speaker.
    """


for command in (
    generate,
    request,
    serve,
    bundle,
    archive,
    bank,
    invert,
    frames,
    log_mels,
    train,
    mapper,
    evaluate,
    verify,
):
    main.add_command(command)
