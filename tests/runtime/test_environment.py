from __future__ import annotations

import json
import platform
import socket

import numpy as np

from flyweight.runtime.environment import environment


def test_the_conditions_are_plain_json_with_the_versions_that_run() -> None:
    found = json.loads(json.dumps(environment()))
    assert found["python"] == platform.python_version()
    assert found["versions"]["numpy"] == np.__version__
    assert found["cores"] >= 1
    assert {"machine", "cpu", "cores", "os", "python", "versions", "date", "command"} <= set(found)


def test_the_name_of_the_machine_is_not_told() -> None:
    assert socket.gethostname() not in json.dumps({k: v for k, v in environment().items() if k != "command"})
