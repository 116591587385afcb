# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every method is called by a test, and every error is provoked by one."""

import ast
import pathlib
import re

import pytest

from contract import PROJECT

HERE = pathlib.Path(__file__).parent


def rows(name, keyword):
    return re.findall(rf"^{keyword}\((\w+),", (PROJECT / "api" / name).read_text(), re.M)


def strings_of_calls():
    """Every string that is an argument of a call in a test."""
    for path in HERE.glob("test_*.py"):
        if path.name == pathlib.Path(__file__).name:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                function = getattr(node.func, "attr", getattr(node.func, "id", ""))
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield function, argument.value


CALLS = set(strings_of_calls())


@pytest.mark.parametrize("error", rows("errors.def", "ERROR"))
def test_error_is_provoked(error):
    assert ("fails", error) in CALLS, f"no test provokes the error {error}"


@pytest.mark.parametrize("method", rows("operations.def", "OPERATION"))
def test_method_is_called(method):
    assert {("call", method), ("stream", method)} & CALLS, f"no test calls {method}"
