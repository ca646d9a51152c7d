"""Refused entries, as they are remembered."""

from gears.contract.write_tokens import Token

Refusal = tuple[Token, str]
"""A refused entry and the reason."""

REMEMBERED_REFUSALS = 10_000
"""How many refused entries are remembered, in Redis and in each process; dead letters in MongoDB keep all."""
