"""Provides the hub of the tests."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def hub_module() -> Any:
    """The module hub_server.py in this folder."""
    spec = importlib.util.spec_from_file_location(
        "hub_server", Path(__file__).with_name("hub_server.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["hub_server"] = module  # its dataclasses need it there
    spec.loader.exec_module(module)
    return module
