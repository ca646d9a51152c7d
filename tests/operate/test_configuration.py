"""Settings: from the environment, from the file that WT_CONFIG names, and what is said of those that can't be used."""

import re
from pathlib import Path

import pytest

from gears.errors import ConfigError
from gears.process.settings import Settings, read_settings, source_of
from writethrough.config_command import hide_password

FILE = """
redis_url = "redis://file.example:6379/0"
commit_timeout = 2
hold = "none"

[mappings.todos]
collection = "test.todos"
hold = true

[mappings.users]
collection = "shop.all.users"
id = "_id"
id_type = "oid"
model = "shop.models.User"
"""


def configured(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Name a file with this text."""
    path = folder / "writethrough.toml"
    path.write_text(text)
    monkeypatch.setenv("WT_CONFIG", str(path))


def test_a_file_names_settings_and_has_mappings_as_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configured(monkeypatch, tmp_path, FILE)
    settings = read_settings()
    assert (settings.redis_url, settings.commit_timeout) == ("redis://file.example:6379/0", 2.0)
    todos, users = settings.mappings
    assert (todos.namespace, todos.id_field, todos.id_type_name, todos.hold) == ("test.todos", "id", "str", 5.0)
    assert (users.namespace, users.id_field, users.id_type_name) == ("shop.all.users", "_id", "oid")
    assert (users.model, users.hold) == ("shop.models.User", 0.0)
    assert source_of("WT_COMMIT_TIMEOUT") == str(tmp_path / "writethrough.toml")
    assert source_of("WT_COLD") == "default"


def test_the_file_in_the_docs_can_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    [example] = re.findall(r"^```toml\n(.*?)^```", docs, re.M | re.S)
    configured(monkeypatch, tmp_path, example)
    _, books = read_settings().mappings
    assert (books.id_field, books.id_type_name, books.model, books.hold) == ("isbn", "str", "shop.models.Book", 0.0)


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configured(monkeypatch, tmp_path, FILE)
    monkeypatch.setenv("wt_commit_timeout", "3")
    monkeypatch.setenv("WT_HOLD", "none")
    assert read_settings().commit_timeout == 3.0
    assert [mapping.hold for mapping in read_settings().mappings] == [0.0, 0.0]
    monkeypatch.setenv("MAPPINGS", "a=b.c:id")
    assert [mapping.prefix for mapping in read_settings().mappings] == ["a"]
    assert source_of("WT_COMMIT_TIMEOUT") == source_of("MAPPINGS") == "environment"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("comit_timeout = 2", r"comit_timeout is no setting; commit_timeout is one"),
        ("commit_timeout = 'x'", r"WT_COMMIT_TIMEOUT: Input should be a valid number.* \(in .*writethrough.toml\)"),
        ("commit_timeout =", r"WT_CONFIG: .*writethrough.toml can't be read: Invalid value"),
        ("[mappings]", r"MAPPINGS is empty"),
        ("[mappings.todos]\nid = 'id'", r"^MAPPINGS.todos.collection: Field required"),
        ("[mappings.todos]\ncollection = 'todos'", r"^MAPPINGS.todos.collection: write it as database.collection"),
        ("[mappings.todos]\ncollection = 'a.b'\nidtype = 'x'", r"^MAPPINGS.todos.idtype: there is no such setting"),
        ("[mappings.todos]\ncollection = 'a.b'\nid_type = 'x'", r"^MAPPINGS: 'x' is no type of ids for 'todos'"),
        ("[mappings.a]\ncollection = 'a.b'\n[mappings.c]\ncollection = 'a.b'", r"^MAPPINGS: 'a' and 'c' share a.b"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line(
    text: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configured(monkeypatch, tmp_path, text)
    with pytest.raises(ConfigError, match=said) as raised:
        read_settings()
    assert "\n" not in str(raised.value)
    assert "pydantic" not in str(raised.value)


def test_a_file_that_is_not_there_is_no_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WT_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match="WT_CONFIG: there is no file"):
        read_settings()


def test_all_settings_that_cannot_be_used_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WT_COMMIT_TIMEOUT": "x", "WT_COLD": "freeze", "MAPPINGS": "wrong"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        read_settings()
    said = str(raised.value).split("; ")
    assert [each.partition(":")[0] for each in said] == ["MAPPINGS", "WT_COMMIT_TIMEOUT", "WT_COLD"]
    assert "validation error" not in str(raised.value)


def test_unknown_names_are_warned_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WT_COMIT_TIMEOUT", "2")
    assert isinstance(read_settings(), Settings)
    said = capsys.readouterr().err
    assert said == "warning: WT_COMIT_TIMEOUT is no setting, and changes nothing; WT_COMMIT_TIMEOUT is one\n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:se@cret@host/0", "redis://:***@host/0"),
        ("mongodb://user:s/cret@a,b/?tls=true", "mongodb://user:***@a,b/?tls=true"),
        ("redis://host?password=secret&db=1", "redis://host?password=***&db=1"),
        ("redis+sentinel://h:1,i:2/my?sentinel_password=s@cret", "redis+sentinel://h:1,i:2/my?sentinel_password=***"),
        (
            "redis+sentinel://u:s@h:1,i/my/0?sentinel_password=s",
            "redis+sentinel://u:***@h:1,i/my/0?sentinel_password=***",
        ),
        ("mongodb://h/?tlsCertificateKeyFilePassword=secret", "mongodb://h/?tlsCertificateKeyFilePassword=***"),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert hide_password(url) == shown
