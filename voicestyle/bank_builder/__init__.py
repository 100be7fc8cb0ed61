"""From photographs to a latent bank: one job over shards that can be interrupted, on one machine or a Ray cluster."""

from voicestyle.bank_builder.build import BuiltBank, Counts, Progress, build_bank, rewrite_report
from voicestyle.bank_builder.errors import BankError
from voicestyle.bank_builder.options import BankOptions

__all__ = ["BankError", "BankOptions", "BuiltBank", "Counts", "Progress", "build_bank", "rewrite_report"]
