"""Mappings: what is accepted, and what is said about the rest."""

import pytest
from pydantic import ValidationError

from gears.contract.mapping import Mapping, parse_mappings
from gears.errors import ConfigError
from gears.process.settings import Settings


def test_mappings_are_parsed() -> None:
    assert parse_mappings("todos=test.todos:id, app:notes=my.notes.all:key:service.models.Todo") == (
        Mapping("todos", "test", "todos", "id"),
        Mapping("app:notes", "my", "notes.all", "key", "service.models.Todo"),
    )
    assert parse_mappings(":shop.Customer.Customer=shop.customers:pk") == (  # as redis-om names keys
        Mapping(":shop.Customer.Customer", "shop", "customers", "pk"),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("todos", "form"),
        ("todos=test:id", "form"),
        ("a b=test.todos:id", "letters"),
        ("sync=test.todos:id", "service itself"),
        ("::todos=test.todos:id", "letters"),
        (":=test.todos:id", "letters"),
        ("docs=test.todos:id", "service itself"),
        ("todos=test.todos:_sync", "id field"),
        ("todos=test.todos:id/objectid", "type of ids"),
        ("todos=test.todos:id/", "type of ids"),
        ("todos=test.sync_tombstones:id", "reserved"),
        ("app=test.a:id,app:todos=test.b:id", "belong"),
        ("app:todos=test.b:id,app=test.a:id", "belong"),
        *((f"a{character}b=test.todos:id", "letters") for character in "*?[]^{}\\'\"$/\n"),
        ("todos=test.todos:$id", "id field"),
        ("todos=test.todos:a.b", "id field"),
        ("todos=test.system.users:id", "reserved"),
        ("a=test.a:id,a=test.b:id", "belong"),
        ("a=test.a:id,b=test.a:id", "share"),
    ],
)
def test_a_mapping_that_cannot_work_is_explained(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_mappings(text)


def test_ids_have_a_type() -> None:
    assert parse_mappings("a=x.a:id/str, b=x.b:n/int, c=x.c:_id/oid, d=x.d:_id/uuid:my.Model, e=x.e:_id") == (
        Mapping("a", "x", "a", "id"),
        Mapping("b", "x", "b", "n", id_type_name="int"),
        Mapping("c", "x", "c", "_id", id_type_name="oid"),
        Mapping("d", "x", "d", "_id", "my.Model", id_type_name="uuid"),
        Mapping("e", "x", "e", "_id"),
    )


def test_settings_name_the_variable_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPPINGS", "nonsense")
    with pytest.raises(ValidationError, match="MAPPINGS"):
        Settings()
