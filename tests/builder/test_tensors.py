import pytest

from builder.tensors import Dim, Interface, contradictions, nearest_dtype, parse_tensor


def test_a_tensor_is_read_and_written_back():
    tensor = parse_tensor("x", "float32[batch, 3, seq: 1..512, width]")
    assert tensor.dtype.name == "float32"
    assert tensor.dims == (Dim(name="batch"), Dim(size=3), Dim(name="seq", low=1, high=512), Dim(name="width"))
    assert str(tensor) == "float32[batch, 3, seq: 1..512, width]"
    assert parse_tensor("x", str(tensor)) == tensor


def test_a_scalar_has_no_dimensions():
    assert parse_tensor("x", "int64[]").dims == ()


def test_shape_and_config_dims():
    tensor = parse_tensor("x", "float32[batch, 3, seq]")
    assert tensor.shape({"batch": 2, "seq": 7}) == (2, 3, 7)
    assert tensor.config_dims(batching=True) == [3, -1]
    assert tensor.config_dims(batching=False) == [-1, 3, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("float32", "is no tensor"),
        ("float32[batch", "is no tensor"),
        ("float33[batch]", "unknown element type 'float33'"),
        ("float32[0]", "dimension 0"),
        ("float32[-1]", "a number, a name"),
        ("float32[seq: 5..2]", "lower end"),
        ("float32[seq: 0..2]", "lower end"),
        ("float32[3, batch]", "first dimension"),
        ("float32[batch: 1..4]", "first dimension"),
        ("float32[a b]", "a number, a name"),
        ("float32[,]", "a number, a name"),
    ],
)
def test_what_is_no_tensor_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_tensor("x", text)


def test_named_dims_take_the_range_wherever_it_stands():
    interface = Interface((parse_tensor("a", "int64[batch, seq]"), parse_tensor("b", "int64[batch, seq: 1..9]")), ())
    assert interface.named_dims() == {"seq": Dim(name="seq", low=1, high=9)}
    assert interface.batches


def test_two_ranges_for_one_name_are_a_conflict():
    tensors = (parse_tensor("a", "int64[seq: 1..9]"), parse_tensor("b", "int64[seq: 1..8]"))
    (found,) = contradictions(Interface(tensors, ()), max_batch=0, batch_given=False)
    assert found.what == "dimension 'seq' has two ranges: 1..9 and 1..8"
    assert found.path == ("inputs", "b")


@pytest.mark.parametrize(
    ("spelling", "ours"),
    [("FP32", "float32"), ("TYPE_INT64", "int64"), ("torch.half", "float16"), ("double", "float64"),
     ("Float32", "float32"), ("fload32", "float32"), ("BYTES", "string"), ("DOUBLE", "float64"), ("complex", None)],
)  # fmt: skip
def test_other_spellings_of_an_element_type_are_known(spelling, ours):
    assert nearest_dtype(spelling) == ours
