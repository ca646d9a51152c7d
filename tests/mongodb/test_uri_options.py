"""The options in MONGO_URI, as docs/configuration.md lists them: honoured, without effect, or refused with a reason."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pymongo import ReadPreference, WriteConcern
from pymongo.read_concern import ReadConcern

from gears.contract.mapping import parse_mappings
from gears.errors import ConfigError
from gears.in_mongo.client import close_client, database_of, open_client

[MAPPING] = parse_mappings("todos=test.todos:id")

HOST = "user:p%40ss@mongo.invalid"

ACCEPTED = [
    "",
    "w=majority",
    "w=1",
    "journal=true",
    "journal=false",
    "wtimeoutMS=100",
    "readPreference=primary",
    "readConcernLevel=local",
    "readConcernLevel=available",
    "readConcernLevel=majority",
    "retryWrites=true&w=majority&appName=Cluster0",
    "retryReads=true",
    "timeoutMS=1&serverSelectionTimeoutMS=1&connectTimeoutMS=1&socketTimeoutMS=1",
    "compressors=zlib&zlibCompressionLevel=6",
    "directConnection=true",
    "loadBalanced=true",
    "replicaSet=rs0",
    "authSource=admin",
    "tls=true&tlsAllowInvalidCertificates=true",
    "ssl=true",
    "maxPoolSize=7;minPoolSize=1",
    "maxIdleTimeMS=120000",
]

REFUSED = [
    ("w=0", "asks MongoDB for no answer", "take it out, or write w=majority"),
    ("w=3", "asks for something else than the majority", "take it out, or write w=majority"),
    ("w=two-sites", "asks for something else than the majority", "take it out, or write w=majority"),
    ("W=0&journal=false", "asks MongoDB for no answer", "take it out, or write w=majority"),
    ("readPreference=primaryPreferred", "asks others than the primary", "take it out"),
    ("readPreference=secondary", "asks others than the primary", "take it out"),
    ("readPreference=secondaryPreferred&readPreferenceTags=dc:east", "asks others than the primary", "take it out"),
    ("readPreference=nearest&maxStalenessSeconds=90", "asks others than the primary", "take it out"),
    ("readConcernLevel=linearizable", "asks for something else than what a majority has", "take it out"),
    ("readConcernLevel=snapshot", "asks for something else than what a majority has", "take it out"),
    ("readPreference=fastest", "the option readPreference can't be used", "Must be one of: primary"),
    ("j=false", "the option j can't be used", "Unknown option"),
    ("compressors=zlib,snappy", "the option compressors can't be used", "install the python-snappy module"),
    ("tlsCAFile=/no/such/file", "the option tlsCAFile can't be used", "not readable"),
    ("tls=maybe", "the option tls can't be used", "must be 'true' or 'false'"),
    ("authMechanismProperties=s3cr:et", "the option authMechanismProperties can't be used", "its value is wrong"),
]


@pytest.mark.parametrize("uri", [*(f"mongodb://{HOST}/?{options}" for options in ACCEPTED), f"mongodb+srv://{HOST}"])
async def test_what_the_promises_rest_on_stays(uri: str) -> None:
    client: Any = open_client(uri, timeout=7)
    database = database_of(client, MAPPING)
    assert database.write_concern == WriteConcern("majority", j=True)
    assert (database.read_concern, database.read_preference) == (ReadConcern("majority"), ReadPreference.PRIMARY)
    assert (client.options.timeout, client.options.retry_writes, client.options.retry_reads) == (7, False, False)
    close_client(client)


@pytest.mark.parametrize(("options", "reason", "remedy"), REFUSED, ids=[options for options, *_ in REFUSED])
async def test_what_cant_be_had_is_refused_with_the_remedy(options: str, reason: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_client(f"mongodb://{HOST}/?retryWrites=false&{options}", timeout=7)
    said = str(caught.value)
    assert said.startswith("MONGO_URI: ")
    assert reason in said
    assert remedy in said
    assert not {"p%40ss", "p@ss", "s3cr"} & set(said.replace(":", " ").split())


@pytest.mark.parametrize("command", ["worker", "serve", "check", "audit"])
def test_every_command_says_so_in_one_line(command: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "writethrough", command],
        env=os.environ | {"REDIS_URL": "redis://127.0.0.1:1/0", "MONGO_URI": "mongodb://127.0.0.1:1/?w=0"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "writethrough: MONGO_URI: w=0 asks MongoDB for no answer, and a write is acknowledged only when "
        "MongoDB has it; take it out, or write w=majority\n"
    )
