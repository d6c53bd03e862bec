"""A class with steps before and after a network, loaded from a file and called for one example after another."""

import numpy as np
import pytest

from handlers import problems
from handlers.steps import Steps, StepsError

USUAL = """
import dataclasses

import numpy as np

@dataclasses.dataclass
class Usual:
    power: int = 2

    def before(self, example):
        example **= self.power
        return example[:2]

    def after(self, outputs):
        return np.array([outputs.sum(), outputs.max()])
"""


def write(folder, text):
    path = folder / "steps.py"
    path.write_text(text)
    return path


def body(before="example", after="outputs", more=""):
    lines = ("import numpy as np", "class Own:", "    def before(self, example):", f"        return {before}")
    return "\n".join([*lines, "    def after(self, outputs):", f"        return {after}", more])


def test_each_example_goes_through_the_methods_alone(tmp_path):
    steps = Steps(write(tmp_path, USUAL), "Usual")
    examples = np.arange(6, dtype=np.uint8).reshape(2, 3)
    prepared = steps.before(examples, (2,))
    assert prepared.dtype == np.float32
    assert prepared.tolist() == [[0, 1], [9, 16]]
    assert examples.tolist() == [[0, 1, 2], [3, 4, 5]]
    outputs = np.array([[[1, 2]], [[3, 4]]], np.float32)
    outputs.flags.writeable = False
    assert steps.after(outputs).tolist() == [[3, 2], [7, 4]]


def test_a_step_may_return_the_same_array_each_time(tmp_path):
    text = body(before="np.copyto(BUFFER, example) or BUFFER", more="BUFFER = np.zeros(1, np.float32)")
    steps = Steps(write(tmp_path, text), "Own")
    assert steps.before(np.array([[1.0], [2.0]])).tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "steps.py does not exist"),
        ("class Own:", "cannot be imported (IndentationError: "),
        ("import nothing_of_this_name", "cannot be imported (ModuleNotFoundError: "),
        ("Own = 1", "has no class Own"),
        ("class Own:\n    def __init__(self, power): pass", "Own cannot be called without arguments ("),
        ("class Own:\n    def before(self, example): pass", "Own has no method after; it needs before and after"),
        ("class Own:\n    before = 1", "Own has no method before; it needs before and after"),
    ],
    ids=["no file", "syntax", "import", "no class", "arguments", "no after", "no before"],
)
def test_a_file_without_the_class_is_refused(tmp_path, text, message):
    path = write(tmp_path, text) if text else tmp_path / "steps.py"
    with pytest.raises(StepsError) as caught:
        Steps(path, "Own")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_must_be_python(tmp_path):
    (tmp_path / "steps.txt").write_text(USUAL)
    with pytest.raises(StepsError, match=r"its name must end in \.py"):
        Steps(tmp_path / "steps.txt", "Usual")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("None", "before() must return a NumPy array of numbers, got NoneType"),
        ("[1.0, 2.0]", "before() must return a NumPy array of numbers, got list"),
        ("np.array(['a'])", "before() must return a NumPy array of numbers, got <U1"),
        ("np.array([1j])", "before() must return a NumPy array of numbers, got complex128"),
        ("np.float32(1)", "before() must return an array of 3, got a single number"),
        ("np.zeros(0)", "before() must return an array of 3, got 0"),
        ("np.zeros((3, 1))", "before() must return an array of 3, got 3x1"),
        ("example.nothing", "before() raised AttributeError"),
    ],
)
def test_a_wrong_result_is_a_fault_of_the_step(tmp_path, result, message):
    steps = Steps(write(tmp_path, body(result, result)), "Own")
    with pytest.raises(StepsError) as caught:
        steps.before(np.zeros((2, 3)), (3,))
    assert message in str(caught.value)
    with pytest.raises(StepsError, match=r"after\(\)"):
        steps.after(np.zeros((2, 3), np.float32), (3,))


def test_the_first_result_decides_the_shape_if_none_is_given(tmp_path):
    steps = Steps(write(tmp_path, body("example[example > 0]")), "Own")
    assert steps.before(np.array([[1, 0], [2, 0]])).shape == (2, 1)
    with pytest.raises(StepsError, match="must return an array of 1, got 2"):
        steps.before(np.array([[1, 0], [2, 2]]))
    with pytest.raises(StepsError, match="must return an array of one or more values, got 0"):
        steps.before(np.zeros((1, 2)))


def test_a_value_error_before_the_network_refuses_the_input_and_is_a_fault_after_it(tmp_path):
    text = body("check(example)", "check(outputs)", "def check(values):\n    raise ValueError('too quiet')")
    steps = Steps(write(tmp_path, text), "Own")
    with pytest.raises(problems.Unprocessable) as refused:
        steps.before(np.zeros((1, 2)))
    assert refused.value.detail == "the model refuses this input: too quiet"
    with pytest.raises(StepsError, match=r"after\(\) raised ValueError"):
        steps.after(np.zeros((1, 2), np.float32))


def test_what_is_too_large_for_float32_becomes_infinite(tmp_path):
    assert np.isinf(Steps(write(tmp_path, body("example.astype(float) + 1e300")), "Own").before(np.ones((1, 1))))
