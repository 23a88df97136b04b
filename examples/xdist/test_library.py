"""Tests of this Python's own library, all of which need an index that takes a while to make."""

import ast
import sysconfig
from pathlib import Path

import pytest


def index_library():
    """What each module at the top of the standard library imports and defines."""
    index = {}
    for path in Path(sysconfig.get_path("stdlib")).glob("*.py"):
        statements = ast.parse(path.read_bytes()).body
        index[path.stem] = {
            "imports": {a.name for s in statements if isinstance(s, ast.Import) for a in s.names},
            "defines": {
                s.name for s in statements if isinstance(s, ast.FunctionDef | ast.ClassDef)
            },
        }
    return index


@pytest.fixture(scope="session")
def library(once):
    return once("library", index_library)


@pytest.mark.parametrize("name", ["argparse", "ast", "dataclasses", "shutil", "tempfile", "uuid"])
def test_module_defines_functions_and_classes(library, name):
    assert len(library[name]["defines"]) > 5


@pytest.mark.parametrize("name", ["abc", "operator", "reprlib", "stat", "types", "warnings"])
def test_module_does_without_typing(library, name):
    assert "typing" not in library[name]["imports"]


def test_more_than_a_hundred_modules_are_indexed(library):
    assert len(library) > 100
