"""Where the page and what belongs to it are found."""

PAGE = "/"

FOLDER = "/-/"
"""No mapping's prefix begins with a `-`."""

EVENTS, FREEZE = f"{FOLDER}events", f"{FOLDER}freeze"
