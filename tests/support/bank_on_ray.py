"""Builds a bank with fake tools on a local Ray cluster: PHOTOGRAPHS FOLDER WEIGHTS.

Prints as JSON the addresses that its processes listen on, and Ray's setting for usage statistics.
"""

import json
import os
import sys
from pathlib import Path

import psutil

from tests.support.fake_bank_tools import fake_toolbox
from voicestyle.bank_builder import BankOptions, build_bank
from voicestyle.bank_builder.ray_tasks import STATISTICS


def listening():
    family = {process.pid for process in psutil.Process().children(recursive=True)}
    connections = [each for each in psutil.net_connections("tcp") if each.pid in family]
    return [each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN]


if __name__ == "__main__":
    photographs, folder, weights = map(Path, sys.argv[1:])
    addresses = set()
    options = BankOptions((photographs,), folder, shard_size=5, ray="local", workers=2)
    build_bank(options, lambda _: addresses.update(listening()), fake_toolbox({"cache/network/weights.pt": weights}))
    print(json.dumps({"addresses": sorted(addresses), "statistics": os.environ[STATISTICS]}))
