"""A proxy that speaks MongoDB's wire protocol: it answers chosen commands with chosen errors, cuts, freezes, delays.

```python
async with WireProxy(port_of_the_server) as proxy:
    client = AsyncMongoClient(proxy.uri)
    with proxy.rule(on("update", "todos").each(), item_error(121)):
        ...
```
"""

from tests.wire.actions import (
    Action,
    apply_then_cut,
    change_reply,
    cut,
    delay,
    delay_answer,
    item_error,
    top_error,
    write_concern_error,
)
from tests.wire.command import Command
from tests.wire.proxy import WireProxy
from tests.wire.replies import reworded, without_key_pattern
from tests.wire.rules import ANY, On, Rule, on
from tests.wire.traffic import Seen, Traffic

__all__ = [
    "ANY",
    "Action",
    "Command",
    "On",
    "Rule",
    "Seen",
    "Traffic",
    "WireProxy",
    "apply_then_cut",
    "change_reply",
    "cut",
    "delay",
    "delay_answer",
    "item_error",
    "on",
    "reworded",
    "top_error",
    "without_key_pattern",
    "write_concern_error",
]
