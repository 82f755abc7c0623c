"""Charts of ``fastelbo bench --plot``."""

from itertools import pairwise

import numpy as np
import pytest

from fastelbo._cli import bench, bench_report, measure

pytest.importorskip("matplotlib")
from fastelbo._cli import _bench_figure


def timed(count, cases=1):
    """Rows of so many contenders, NumPy and fastelbo among them; the i-th takes (i + 1) us."""
    names = ["NumPy", *(f"peer {i}" for i in range(1, count - 1)), "fastelbo, 1 thread"]
    return [
        measure.Time(
            f"case{case}", "MMD", "B 3", dtype, name, 1, 1e-6 * (i + 1), speedup=1.5 if i else 1.0
        )
        for case in range(cases)
        for dtype in bench.DTYPES
        for i, name in enumerate(names)
    ]


def test_bars_of_a_chart():
    """Named where they begin, by a logarithmic axis; the caption says of what they are."""
    rows = timed(3)
    wrong = measure.Time("case0", "MMD", "B 3", "float32", "wrong", 1, disagrees=True)
    traffic = measure.Time("case0", "MMD", "B 3", "float32", "memory traffic alone", 1, 1e-7)
    figure = _bench_figure.draw([*rows, wrong, traffic], "a machine, 2 threads; NumPy 9.9.")
    assert "shorter is better" in figure.get_suptitle()
    assert "a machine" in figure.get_supxlabel()
    (panel,) = figure.axes
    assert panel.get_xscale() == "log"
    assert panel.get_title(loc="left") == "MMD"
    names = [text.get_text() for text in panel.get_yticklabels()]
    assert names == ["NumPy", "peer 1", "fastelbo, 1 thread"]
    ends = [bar.get_x() + bar.get_width() for bar in panel.patches]
    np.testing.assert_allclose(ends, [1, 2, 3] * 2)
    beside = [bar.get_y() + bar.get_height() / 2 for bar in panel.patches]
    assert np.round(beside).tolist() == [0, 1, 2] * 2
    notes = [text.get_text() for text in panel.texts]
    assert notes == ["1 µs", "2 µs   1.5x", "3 µs   1.5x"] * 2 + ["case0, B 3"]
    colours = [bar.get_facecolor() for bar in panel.patches]
    assert len(set(colours)) == 4, "ours and theirs in two dtypes"
    assert colours[0] == colours[1] != colours[2]


@pytest.mark.parametrize(("contenders", "cases"), [(9, 1), (9, 5), (30, 2)])
def test_many_bars_are_legible(contenders, cases):
    figure = _bench_figure.draw(timed(contenders, cases), "a machine " * 30)
    figure.draw_without_rendering()
    assert len(figure.axes) == cases
    room = figure.bbox
    for panel in figure.axes:
        box = panel.get_window_extent()
        assert box.height / figure.dpi / (2 * contenders) > 0.12, "inches a bar"
        assert box.width / figure.dpi > 3
        labels = [text.get_window_extent() for text in panel.get_yticklabels()]
        assert not any(a.overlaps(b) for a, b in pairwise(labels))
        for text in (*panel.texts, *panel.get_yticklabels()):
            shown = text.get_window_extent()
            assert room.x0 <= shown.x0
            assert shown.x1 <= room.x1
    (key,) = figure.legends
    assert not key.get_window_extent().overlaps(figure._suptitle.get_window_extent())


def test_units_of_a_chart():
    times = (0.25, 999.4, 999.6, 12_345.0, 999_999.0, 2.5e6)
    found = [_bench_figure._unit(us) for us in times]
    assert found == ["0.25 µs", "999 µs", "1 ms", "12.3 ms", "1 s", "2.5 s"]


def test_four_cases_are_drawn_unless_names_are_given():
    rows = timed(3, 6)
    assert {row.case for row in bench_report.four_cases(rows)} == {f"case{i}" for i in range(4)}


def test_the_caption_names_machine_versions_and_who_is_absent():
    report = {"environment": bench.environment(2), "absent": {"JAX jit": "not installed (jax)"}}
    said = bench_report.caption(report)
    about = report["environment"]
    for word in (about["processor"], "2 threads", np.__version__, about["build"], "JAX jit: not"):
        assert word in said
