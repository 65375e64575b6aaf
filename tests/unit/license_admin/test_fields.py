"""The options of `license-admin` against what the servers take: no member is missing, none is invented."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from api.admin.bulk import ImportedLicense
from api.admin.schemas import LicenseBody, MachineBody, PolicyBody, ProductBody
from api.admin.token_store import Scope
from license_admin import csv_rows, fields
from license_admin.commands.access import SCOPES


@pytest.mark.parametrize(
    ("shown", "body"),
    [
        (fields.PRODUCT, ProductBody),
        (fields.POLICY, PolicyBody),
        (fields.LICENSE, LicenseBody),
        (fields.MACHINE, MachineBody),
    ],
)
def test_each_member_has_an_option_of_its_form(shown: Sequence[fields.Field], body: type[msgspec.Struct]) -> None:
    members = {member.name: member.type for member in msgspec.structs.fields(body)}
    assert {field.name for field in shown} == set(members)
    for field in shown:
        assert field.nullable == (type(None) in getattr(members[field.name], "__args__", ())), field.name
        for choice in field.choices:
            assert msgspec.convert(choice, members[field.name]) == choice


def test_scopes_and_columns_are_the_servers() -> None:
    assert tuple(Scope) == SCOPES
    assert set(csv_rows.COLUMNS) == set(ImportedLicense.__struct_fields__)
