"""Builds a bank with fake tools in its own process: PHOTOGRAPHS FOLDER DIARY WORKERS SECONDS."""

import sys
from pathlib import Path

from tests.support.fake_bank_tools import fake_toolbox
from voicestyle.bank_builder import BankOptions, build_bank

if __name__ == "__main__":
    photographs, folder, diary = map(Path, sys.argv[1:4])
    workers, seconds = int(sys.argv[4]), float(sys.argv[5])
    options = BankOptions((photographs,), folder, shard_size=3, workers=workers)
    build_bank(options, toolbox=fake_toolbox(diary=diary, seconds=seconds))
