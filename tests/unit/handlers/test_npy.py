"""The .npy format: arrays of numbers are read, and everything else is refused."""

import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from handlers import limits, problems
from handlers.inputs import npy

DATATYPES = [f"{order}{kind}" for kind in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8") for order in "<>"]


def save(values: np.ndarray, version=(1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values, version, allow_pickle=True)
    return stream.getvalue()


def with_header(text: str, data: bytes = b"") -> bytes:
    return npy.MAGIC + b"\1\0" + len(text).to_bytes(2, "little") + text.encode() + data


@given(
    npst.arrays(
        st.sampled_from([np.dtype(name) for name in ["u1", "i1", *DATATYPES]]),
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    st.sampled_from("CF"),
    st.sampled_from([(1, 0), (2, 0), (3, 0)]),
)
def test_arrays_written_by_numpy_are_read(values, order, version):
    array = npy.read(save(np.asarray(values, order=order), version))
    np.testing.assert_array_equal(array, values)
    assert array.dtype == values.dtype


def test_numpy_reads_written_arrays():
    values = np.arange(30, dtype=np.float32).reshape(3, 10)
    np.testing.assert_array_equal(np.load(io.BytesIO(npy.write(values))), values)


class Trap:
    """Fails the test if it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_a_pickle_is_never_loaded():
    with pytest.raises(problems.Unprocessable, match="not supported"):
        npy.read(save(np.array([Trap()], dtype=object)))
    with pytest.raises(problems.Malformed):
        npy.read(pickle.dumps(Trap()))


@pytest.mark.parametrize("datatype", ["|b1", "<c8", "<U5", "|S3", "<M8[s]", "<f16", "[('a', '<f4')]"])
def test_other_datatypes_are_refused(datatype):
    text = f"{{'descr': {datatype if datatype[0] == '[' else repr(datatype)}, 'fortran_order': False, 'shape': (1,)}}"
    with pytest.raises(problems.Unprocessable, match="integers or floats"):
        npy.read(with_header(text, bytes(16)))


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        "(" * 900,
        "[1]",
        "print()",
        "{'descr': '<f4', 'fortran_order': False}",
        GOOD[:-1] + ", 'more': 1}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': [2]}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2.0,)}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30}, {10**30})}}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1,' * 40})}}",
        "{[]: 1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}\0junk",
    ],
    ids=lambda text: text[:60] or "empty",
)
def test_a_wrong_header_is_malformed(text):
    with pytest.raises(problems.Malformed):
        npy.read(with_header(text, bytes(8)))


@pytest.mark.parametrize("data", [bytes(7), bytes(9), b""], ids=len)
def test_data_of_another_length_is_malformed(data):
    with pytest.raises(problems.Malformed, match="8 bytes"):
        npy.read(with_header(GOOD, data))


@pytest.mark.parametrize(
    "body",
    [
        npy.MAGIC,
        npy.MAGIC + b"\1",
        npy.MAGIC + b"\1\0",
        npy.MAGIC + b"\4\0" + bytes(100),
        npy.MAGIC + b"\1\0\xff\xff" + bytes(70_000),
        npy.MAGIC + b"\2\0\xff\xff\xff\xff",
        b"\x93NUMPZ" + bytes(100),
    ],
    ids=["magic", "no minor", "no length", "version 4", "long header", "header beyond the end", "other magic"],
)
def test_a_wrong_start_is_malformed(body):
    with pytest.raises(problems.Malformed):
        npy.read(body)


def test_a_valid_header_beyond_the_limit_is_malformed():
    with pytest.raises(problems.Malformed, match=str(limits.NPY_HEADER_BYTES)):
        npy.read(with_header(GOOD + " " * limits.NPY_HEADER_BYTES, bytes(8)))
