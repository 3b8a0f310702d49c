"""pyproject.toml, constraints.txt and environment.yml say the same thing, and this environment is what they say."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GROUPS = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
REQUIREMENTS = [requirement for group in GROUPS for requirement in map(Requirement, group) if requirement.name != "gptlib"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
PINS = {canonicalize_name(name): version for name, version in PINS.items()}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_each_requirement_is_pinned_within_its_range_and_installed_so(requirement):
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)
    assert importlib.metadata.version(requirement.name).split("+")[0] == pin        # 2.13.0+cpu is 2.13.0


def test_environment_yml_holds_no_second_list_of_versions():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert listed == ["python=3.11", "pip", {"pip": ["-c constraints.txt", "-e .[dev]"]}]
    assert PROJECT["requires-python"] == ">=3.11"


@pytest.mark.parametrize("name", ["constraints.txt", "environment.yml", "pyproject.toml"])
def test_no_file_names_a_host_or_a_local_build(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"://|\+cpu|--index|--find-links", text)
