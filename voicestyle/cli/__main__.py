"""`python -m voicestyle.cli`, which torchrun needs: it starts modules and scripts."""

from voicestyle.cli import main

main(prog_name="voicestyle")
