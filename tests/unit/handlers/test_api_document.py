"""``docs/api.md`` and ``config.properties`` agree with the handlers."""

import re
from pathlib import Path

import pytest

from handlers import limits, problems
from handlers.inputs import options

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "api.md").read_text()
LIMITS = {name: value for name, value in vars(limits).items() if name.isupper() and name != "JSON_PIECE_BYTES"}


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_is_documented(name):
    (value,) = re.findall(rf"\| ([\d,]+) \| `{name}` \|", DOCUMENT)
    assert int(value.replace(",", "")) == LIMITS[name]


def test_the_frontend_and_the_handlers_accept_the_same_size():
    (size,) = re.findall(r"^max_request_size=(\d+)$", (ROOT / "config.properties").read_text(), re.MULTILINE)
    assert int(size) == limits.REQUEST_BYTES


@pytest.mark.parametrize("problem", problems.Problem.__subclasses__(), ids=lambda problem: problem.__name__)
def test_every_problem_is_documented(problem):
    if problem.__module__ == problems.__name__:
        assert f"| `{problem.type.removeprefix(problems.TYPE_PREFIX)}` | {problem.status} |" in DOCUMENT


def test_every_problem_of_the_gateway_is_documented():
    gateway = (ROOT / "serving" / "gateway" / "nginx" / "problems.conf.template").read_text()
    (types,) = re.findall(r"map \$status \$problem_type \{(.*?)\}", gateway, re.DOTALL)
    names = re.findall(r"([a-z-]+);", types)
    assert "not-found" in names
    assert all(f"| `{name}` |" in DOCUMENT for name in names)


@pytest.mark.parametrize("name", options.Options.__dataclass_fields__)
def test_every_option_is_documented(name):
    assert f"| `{name}` |" in DOCUMENT


def test_the_example_is_a_real_problem():
    body = problems.Unprocessable("shape 2x2 does not fit this model; send 28x28, Nx28x28 or Nx784").body("x").decode()
    for name in ("type", "title", "detail", "error"):
        (value,) = re.findall(rf'"{name}":"([^"]*)"', body)
        assert f'"{name}": "{value}"' in DOCUMENT
