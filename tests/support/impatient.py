"""`python -m tests.impatient`: the API as it is, but for deadlines and limits short enough for tests."""

from service.__main__ import app
from service.http import bodies
from service.http import protocol as http
from service.http import writes_in_flight as admission
from service.http.slow_clients import Patience

HEAD_SECONDS = BODY_SECONDS = UNREAD_SECONDS = 1.5
MAX_CONNECTIONS = 300
MAX_UNREAD = 8 * 1024 * 1024
MAX_WRITES = 20

http.HttpProtocol._heads = Patience(HEAD_SECONDS)
http.HttpProtocol._readers = Patience(UNREAD_SECONDS, most_bytes=MAX_UNREAD)
http.MAX_CONNECTIONS = MAX_CONNECTIONS
bodies.BODY_SECONDS = BODY_SECONDS
admission.MAX_WRITES = MAX_WRITES

if __name__ == "__main__":
    app(prog_name="python -m tests.impatient")
