"""union_of_times: facts worked by hand."""

import numpy as np
import pytest

from fastelbo import reference, union_of_times


def test_by_hand():
    grid, positions = union_of_times([[0.0, 1.0, 3.0], [0.5, 1.0, 2.0]])
    assert grid.tolist() == [0.0, 0.5, 1.0, 2.0, 3.0]
    assert positions.tolist() == [[0, 2, 4], [1, 2, 3]]


def test_one_vector_of_times_is_its_own_grid():
    grid, positions = union_of_times([0.0, 0.5, 2.0])
    assert grid.tolist() == [0.0, 0.5, 2.0]
    assert positions.tolist() == [0, 1, 2]


@pytest.mark.parametrize("padding", [np.nan, -1.0, np.inf])
def test_padding_is_not_read(padding):
    times = [[0.0, 2.0, padding], [padding, 1.0, 2.0]]
    mask = [[True, True, False], [False, True, True]]
    for given in (mask, np.array(mask)[..., None] & [True, False]):
        for module in (union_of_times, reference.union_of_times):
            grid, positions = module(times, mask=given)
            assert grid.tolist() == [0.0, 1.0, 2.0]
            assert positions.tolist() == [[0, 2, 0], [0, 1, 2]]


def test_times_of_all_with_a_mask_of_each():
    mask = [[True, False, True], [False, False, True]]
    for module in (union_of_times, reference.union_of_times):
        grid, positions = module([0.0, 1.0, 2.0], mask=mask)
        assert grid.tolist() == [0.0, 2.0]
        assert positions.tolist() == [[0, 0, 1], [0, 0, 1]]


def test_a_solution_on_the_grid_is_read_by_the_index():
    """As the docstring says: of z_b(t) = b + t."""
    times = np.sort(np.random.default_rng(0).uniform(size=(4, 6)), axis=1)
    grid, positions = union_of_times(times)
    assert np.all(np.diff(grid) > 0)
    solution = grid[:, None, None] + np.arange(4)[:, None]  # (G, B, 1)
    got = solution[positions, np.arange(4)[:, None]]
    np.testing.assert_array_equal(got[..., 0], times + np.arange(4)[:, None])


def test_tensors_are_taken():
    torch = pytest.importorskip("torch")
    grid, _ = union_of_times(torch.tensor([[0.0, 1.0]]), mask=torch.tensor([[False, True]]))
    assert grid.tolist() == [1.0]


@pytest.mark.parametrize(
    ("times", "mask", "message"),
    [
        ([[0.0, 2.0, 1.0]], None, r"^times out of order: times\[0, 2\] = 1 comes after 2"),
        ([0.0, np.nan], None, r"^times\[1\] = nan is not finite: mask what is missing"),
        ([[0.0, np.inf]], None, r"^times\[0, 1\] = inf is not finite"),
        ([[0.0, 1.0]], [[False, False]], "^times: nothing was observed"),
        ([[0.0, 1.0]], [[True]], "^mask has shape"),
        (0.0, None, "^times has shape"),
        ([[[0.0]]], None, "^times has shape"),
    ],
)
def test_errors_name_what_is_wrong(times, mask, message):
    with pytest.raises(ValueError, match=message):
        union_of_times(times, mask=mask)


def test_masks_are_boolean():
    with pytest.raises(TypeError, match=r"^mask must be boolean"):
        union_of_times([[0.0, 1.0]], mask=[[0, 1]])
