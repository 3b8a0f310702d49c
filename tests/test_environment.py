"""pyproject.toml, constraints.txt and environment.yml agree, and this environment follows them."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(read("pyproject.toml"))["project"]
GROUPS = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
# "gptlib[cluster,course]" in the group dev refers to other groups.
REQUIREMENTS = [requirement for group in GROUPS for requirement in map(Requirement, group)
                if requirement.name != "gptlib"]
PINS = {canonicalize_name(name): version for name, version in re.findall(
    r"^([\w.-]+)==(\S+)$", read("constraints.txt"), re.MULTILINE)}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_each_requirement_has_a_pinned_version_within_its_range(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_the_pinned_version_is_installed(requirement):
    # A local build such as 2.13.0+cpu is version 2.13.0.
    installed = importlib.metadata.version(requirement.name).split("+")[0]
    assert installed == PINS[canonicalize_name(requirement.name)]


def test_environment_yml_takes_its_versions_from_the_other_files():
    dependencies = yaml.safe_load(read("environment.yml"))["dependencies"]
    assert dependencies == ["python=3.11", "pip", {"pip": ["-c constraints.txt", "-e .[dev]"]}]
    assert PROJECT["requires-python"] == ">=3.11"


@pytest.mark.parametrize("name", ["constraints.txt", "environment.yml", "pyproject.toml"])
def test_no_file_names_a_host_or_a_local_build(name):
    assert not re.search(r"://|\+cpu|--index|--find-links", read(name))
