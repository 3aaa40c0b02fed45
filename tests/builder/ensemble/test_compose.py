"""The ensemble in this process: steps in order, batches as the server passes them, what is left out left out."""

from dataclasses import replace

import numpy as np
import pytest

from builder.ensemble.compose import EnsembleRunner
from tests.builder.ensemble.broken import BROKEN
from tests.builder.ensemble.small import graph, model, step

F4 = "float32[batch, 4]"
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def plus(number):
    return lambda request: {"y": request["x"] + number}


def chain(*, first=8, second=8, inner="float32[batch, 4]", batch=8):
    one = model("one", {"x": inner if not first else F4}, {"y": inner if not first else F4}, batch=first)
    two = model("two", {"x": inner if not second else F4}, {"y": inner if not second else F4}, batch=second)
    own = F4 if batch else "float32[4]"
    return graph(
        {"x": own}, {"y": own}, step(two, {"x": "m"}, {"y": "y"}), step(one, {"x": "x"}, {"y": "m"}), batch=batch
    )


def test_steps_run_in_the_order_of_the_data():
    runner = EnsembleRunner(chain(), {"one": plus(1), "two": lambda request: {"y": request["x"] * 2}})
    assert np.array_equal(runner({"x": X})["y"], (X + 1) * 2)
    assert list(runner({"x": X})) == ["y"]


def test_a_batch_of_one_is_unpacked_for_a_step_that_does_not_batch_and_packed_again():
    shapes = []

    def seen(request):
        shapes.append(request["x"].shape)
        return {"y": request["x"]}

    runner = EnsembleRunner(chain(second=0, inner="float32[4]"), {"one": plus(1), "two": seen})
    assert np.array_equal(runner({"x": X[:1]})["y"], X[:1] + 1)
    assert shapes == [(4,)]
    with pytest.raises(ValueError, match=r"one.y is \[2, 4\], and two.x float32\[4\] takes one sample at a time"):
        runner({"x": X})


def test_an_ensemble_that_does_not_batch_gives_its_steps_one_sample():
    runner = EnsembleRunner(chain(batch=0), {"one": plus(1), "two": plus(1)})
    assert np.array_equal(runner({"x": X[0]})["y"], X[0] + 2)


def test_a_step_with_the_batch_in_its_dims_takes_it_whole():
    runner = EnsembleRunner(chain(second=0, inner="float32[n, 4]"), {"one": plus(1), "two": plus(1)})
    assert np.array_equal(runner({"x": X})["y"], X + 2)


def test_what_callers_leave_out_steps_do_not_get():
    given = []

    def seen(request):
        given.append(sorted(request))
        return {"y": request["x"]}

    one = model("one", {"x": F4, "w?": F4}, {"y": F4})
    optional = graph({"x": F4, "w?": F4}, {"y": F4}, step(one, {"x": "x", "w": "w"}, {"y": "y"}))
    runner = EnsembleRunner(optional, {"one": seen})
    runner({"x": X})
    runner({"x": X, "w": X})
    assert given == [["x"], ["w", "x"]]
    with pytest.raises(ValueError, match="input 'x' of the ensemble is missing"):
        runner({"w": X})
    with pytest.raises(ValueError, match="the ensemble has no input 'v'; it has w, x"):
        runner({"x": X, "v": X})
    needed = replace(optional, steps=(replace(optional.steps[0], model=model("one", {"x": F4, "w": F4}, {"y": F4})),))
    with pytest.raises(ValueError, match=r"one\.w is needed, and tensor 'w' was not given"):
        EnsembleRunner(needed, {"one": seen})({"x": X})


def test_an_answer_without_an_output_is_told():
    with pytest.raises(ValueError, match="step 'one' gave no 'y', but z"):
        EnsembleRunner(chain(), {"one": lambda request: {"z": X}, "two": plus(1)})({"x": X})
    with pytest.raises(ValueError, match="output 'q' of the ensemble was not made"):
        EnsembleRunner(replace(chain(), outputs=graph({}, {"q": F4}).outputs), {"one": plus(1), "two": plus(1)})(
            {"x": X}
        )


def test_what_cannot_run_is_refused_at_once():
    with pytest.raises(ValueError, match="no runner for one"):
        EnsembleRunner(chain(), {"two": plus(1)})
    circle = next(row[2] for row in BROKEN if row[0] == "ensemble-cycle")
    with pytest.raises(ValueError, match="steps that need each other"):
        EnsembleRunner(circle, {one.name: plus(1) for one in circle.steps})
    lost = replace(chain(), steps=(replace(chain().steps[0], model=None), chain().steps[1]))
    with pytest.raises(ValueError, match="nothing is known of the model of two"):
        EnsembleRunner(lost, {"one": plus(1), "two": plus(1)})
