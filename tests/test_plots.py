"""What trained models draw: what is on the axes, and that nothing else is touched."""

import sys
from itertools import combinations

import numpy as np
import pytest

from fastelbo import VAE, SemiSupervisedVAE
from fastelbo._plots import (
    COLOURS,
    INK,
    MOST_CLASSES,
    YELLOW,
    draw_history,
    draw_reconstructions,
    fit_to,
    spread,
)

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

QUICK = {"hidden": (8,), "epochs": 3, "random_state": 0}


@pytest.fixture(scope="module")
def rows():
    """52 rows of 16 numbers in [0, 1]."""
    return np.random.default_rng(0).random((52, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def models(rows):
    """By latent_dim."""
    return {n: VAE(latent_dim=n, **QUICK).fit(rows) for n in (1, 2, 3)}


@pytest.fixture
def ax():
    return Figure().subplots()


# Colours ----------------------------------------------------------------------------------------

#: Machado, Oliveira, Fernandes, A physiologically-based model for simulation of color vision
#: deficiency, 2009: severity 1, of linear RGB.
EYES = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab(colour, eyes):
    """CIE Lab of an sRGB colour as these eyes see it, under D65."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    t = TO_XYZ @ np.clip(EYES[eyes] @ linear, 0, 1) / TO_XYZ.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def closest(colours, eyes):
    """The least distance of two of them."""
    return min(np.linalg.norm(lab(a, eyes) - lab(b, eyes)) for a, b in combinations(colours, 2))


def test_lab_is_lab():
    np.testing.assert_allclose(lab("white", "all cones"), [100, 0, 0], atol=1e-3)
    np.testing.assert_allclose(lab("red", "all cones"), [53.24, 80.09, 67.20], atol=0.01)
    assert closest(("red", "green"), "all cones") > 100


@pytest.mark.parametrize(
    ("eyes", "least"),
    [("all cones", 19.2), ("protanopia", 18.4), ("deuteranopia", 17.5), ("tritanopia", 17.2)],
)
def test_any_two_colours_stay_apart(eyes, least):
    """A difference of 2.3 is just seen. Matplotlib's default colours come as near as 4.6."""
    assert closest(COLOURS, eyes) > least
    if eyes == "protanopia":
        assert closest([f"C{i}" for i in range(10)], eyes) == pytest.approx(4.6, abs=0.1)


def test_every_colour_is_seen_on_paper():
    for eyes in EYES:
        assert all(np.linalg.norm(lab(c, eyes) - lab("white", eyes)) > 15 for c in COLOURS)


# History ----------------------------------------------------------------------------------------


def series_of(ax):
    """{label: y} of the curves."""
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()}


def test_history(models, ax):
    model = models[2]
    assert model.plot_history(ax) is ax
    drawn = series_of(ax)
    assert list(drawn) == ["ELBO", "reconstruction", "KL"]
    np.testing.assert_array_equal(drawn["KL"], model.history_["kl"])
    assert ax.get_lines()[0].get_xdata().tolist() == [1, 2, 3]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "nats a sample")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(drawn)
    assert len(ax.figure.axes) == 1, "beta never changes"


def test_whatever_else_is_in_the_history(ax):
    history = {"elbo": [-3.0, -2.0], "kl": [1.0, 1.5], "beta": [0.5, 1.0], "val_elbo": [-4.0, -3.0]}
    draw_history(ax, {**history, "active_units": [1, 2], "learning_rate": [0.1, 0.1]})
    _, right = ax.figure.axes
    assert set(series_of(ax)) == {
        "reconstruction \N{MINUS SIGN} beta KL",
        "KL",
        "ELBO, validation",
    }
    assert [line.get_linestyle() for line in ax.get_lines()] == ["-", "-", "--"]
    assert list(series_of(right)) == ["beta", "active units"]
    assert right.get_ylabel() == "beta, active units"
    assert len(right.get_legend().get_texts()) == 5
    top = ax.transData.transform([(1, max(history["kl"]))])[0, 1]
    assert top < ax.bbox.y0 + 0.8 * ax.bbox.height, "the legend is above the curves"


def test_an_objective_that_is_no_elbo_is_not_called_so(rows, ax):
    VAE(latent_dim=2, beta=0.5, **QUICK).fit(rows).plot_history(ax, series="elbo")
    assert list(series_of(ax)) == ["reconstruction \N{MINUS SIGN} 0.5 KL"]


def test_one_epoch_is_a_point(rows, ax):
    VAE(latent_dim=2, **{**QUICK, "epochs": 1}).fit(rows).plot_history(ax)
    assert {line.get_marker() for line in ax.get_lines()} == {"o"}
    (tick,) = [tick for tick in ax.get_xticks() if 0.5 <= tick <= 1.5]
    assert tick == 1


def test_early_epochs_leave_the_picture_only_where_they_hide_the_rest(ax):
    ax.plot(np.arange(1, 41), [-1000.0, -10.0, *np.linspace(-5, -1, 38)])
    fit_to(ax)
    assert -10 < ax.get_ylim()[0] < -5
    assert ax.get_ylim()[1] > -1
    ax.clear()
    ax.plot(np.arange(1, 41), np.linspace(0, 1, 40))
    fit_to(ax)
    assert ax.get_ylim()[0] < 0
    ax.clear()
    ax.plot([1, 2], [np.nan, 3.0])
    fit_to(ax)
    assert ax.get_ylim()[0] < 3 < ax.get_ylim()[1]
    ax.clear()
    ax.plot([1, 2], [np.nan, np.inf])
    limits = ax.get_ylim()
    fit_to(ax)
    assert ax.get_ylim() == limits


def test_no_series_of_that_name(models, ax):
    with pytest.raises(ValueError, match=r'series must be "elbo" or .*did you mean \'elbo\''):
        models[2].plot_history(ax, series=["elb"])
    assert not ax.get_lines()


# Latents ----------------------------------------------------------------------------------------


def points(ax):
    """(places, face colours, marker's corners) of all collections."""
    return [
        (np.asarray(c.get_offsets()), c.get_facecolors(), len(c.get_paths()[0].vertices))
        for c in ax.collections
    ]


def named(ax):
    """The names on it; what is empty is the line from a name to its median."""
    return [text for text in ax.texts if text.get_text()]


def test_two_dimensions_are_drawn_as_they_are(models, rows, ax):
    assert models[2].plot_latent(rows, ax=ax) is ax
    ((places, faces, _),) = points(ax)
    np.testing.assert_allclose(places, models[2].transform(rows))
    assert len(np.unique(faces, axis=0)) == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "$z_2$")
    assert not named(ax)
    assert ax.get_legend() is None


def test_more_are_drawn_on_principal_axes(models, rows, ax):
    models[3].plot_latent(rows, ax=ax)
    means = models[3].transform(rows).astype(np.float64)
    _, singular, axes = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    expected = (means - means.mean(axis=0)) @ axes[:2].T
    np.testing.assert_allclose(np.abs(points(ax)[0][0]), np.abs(expected), atol=1e-6)
    share = singular**2 / (singular**2).sum()
    assert ax.get_xlabel() == f"first principal axis, {share[0]:.0%} of the variance"
    assert ax.get_ylabel() == f"second principal axis, {share[1]:.0%}"


@pytest.mark.parametrize("labels", [np.arange(52) % 3, np.array(list("xyz"))[np.arange(52) % 3]])
def test_classes_are_named_at_their_medians(models, rows, ax, labels):
    models[2].plot_latent(rows, labels, ax)
    names = [str(name) for name in np.unique(labels)]
    assert [text.get_text() for text in named(ax)] == names
    means = models[2].transform(rows)
    for text, name in zip(named(ax), np.unique(labels), strict=True):
        np.testing.assert_allclose(text.xy, np.median(means[labels == name], axis=0), atol=1e-6)
    ((_, faces, _),) = points(ax)
    expected = [to_rgb(COLOURS[i % 3]) for i in range(52)]
    np.testing.assert_allclose(faces[:, :3], expected)


def test_more_classes_than_colours_differ_by_markers(models, rows, ax):
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))[np.arange(52) % 26]
    models[2].plot_latent(rows, letters, ax)
    assert len(named(ax)) == 26
    drawn = points(ax)
    assert len({corners for *_, corners in drawn}) == 3
    assert sum(len(places) for places, *_ in drawn) == 52
    looks = {(corners, *face) for _, faces, corners in drawn for face in faces}
    assert len(looks) == 26
    ax.figure.draw_without_rendering()
    boxes = [text.get_bbox_patch().get_window_extent() for text in named(ax)]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_held_out_rows_are_hollow(models, rows, ax):
    held_out = np.arange(52) % 3 == 0
    models[2].plot_latent(rows, np.arange(52) % 2, ax, held_out=held_out)
    (seen, filled, _), (unseen, hollow, _) = points(ax)
    means = models[2].transform(rows)
    np.testing.assert_allclose(seen, means[~held_out])
    np.testing.assert_allclose(unseen, means[held_out])
    assert len(np.unique(filled, axis=0)) == 2
    np.testing.assert_array_equal(np.unique(hollow[:, :3], axis=0), [[1, 1, 1]])
    edges = ax.collections[1].get_edgecolors()
    assert len(np.unique(edges, axis=0)) == 2
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["training", "held out"]


def test_one_dimension_is_a_histogram(models, rows, ax):
    held_out = np.arange(52) < 20
    models[1].plot_latent(rows, ax=ax, held_out=held_out)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "density")
    *bars, outline = ax.patches
    assert sum(bar.get_width() * bar.get_height() for bar in bars) == pytest.approx(1)
    assert not outline.get_fill()
    assert not ax.collections, "no second axis is made up"


def test_one_dimension_has_a_row_for_each_class(models, rows, ax):
    names = np.array(["bag", "coat", "dress"])
    models[1].plot_latent(rows, names[np.arange(52) % 3], ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == names.tolist()
    ((places, *_),) = points(ax)
    z = models[1].transform(rows)[:, 0]
    np.testing.assert_allclose(places[:, 0], z)
    np.testing.assert_array_equal(np.round(places[:, 1]), np.arange(52) % 3)
    medians = [line.get_xdata()[0] for line in ax.get_lines()]
    np.testing.assert_allclose(medians, [np.median(z[i::3]) for i in range(3)], atol=1e-6)
    assert {line.get_color() for line in ax.get_lines()} == {INK}


def test_a_quantity_has_a_scale(models, rows, ax):
    quantity = rows.sum(axis=1)
    models[2].plot_latent(rows, quantity, ax)
    _, bar = ax.figure.axes
    assert bar.get_ylabel() == "y"
    faces = points(ax)[0][1]
    np.testing.assert_allclose(
        faces[quantity.argmax(), :3], matplotlib.colormaps["cividis"](1.0)[:3]
    )
    assert not named(ax)
    other = Figure().subplots()
    models[1].plot_latent(rows, quantity, other)
    np.testing.assert_allclose(points(other)[0][0][:, 1], quantity)
    assert len(other.figure.axes) == 1


def test_many_whole_numbers_are_a_quantity(models, ax):
    X = np.random.default_rng(0).random((80, 16))
    models[2].plot_latent(X, np.arange(80), ax)
    assert len(ax.figure.axes) == 2
    assert MOST_CLASSES == 70
    with pytest.raises(ValueError, match="y has 80 different labels, of which 70 can be told"):
        models[2].plot_latent(X, np.arange(80).astype(str), ax)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"y": [1, 2]}, ValueError, r"y has shape \(2,\), expected \(52,\), a label for each row"),
        ({"y": np.array([1, "a"] * 26, object)}, TypeError, "y must have labels of one kind"),
        ({"y": np.full(52, np.nan)}, ValueError, "y has no finite number"),
        ({"held_out": np.arange(52)}, TypeError, "held_out must be boolean"),
        ({"held_out": [True]}, ValueError, r"held_out has shape \(1,\), expected \(52,\)"),
        ({"X": np.zeros((3, 2))}, ValueError, "X has 2 features"),
        ({"ax": "axes"}, TypeError, "ax must be an Axes of Matplotlib or None, got 'axes'"),
    ],
)
def test_errors_of_latents(models, rows, ax, arguments, error, message):
    given = {"X": rows, "ax": ax, **arguments}
    with pytest.raises(error, match=message):
        models[2].plot_latent(**given)
    assert not ax.collections


@pytest.mark.parametrize("where", [0.5, 0.98])
def test_boxes_move_until_they_are_apart(where):
    """As names must where all medians are one, in a model that has collapsed."""
    sizes = np.random.default_rng(0).uniform(0.04, 0.15, (40, 2))
    places = spread(np.full((40, 2), where), sizes)
    for i, j in combinations(range(40), 2):
        assert (np.abs(places[i] - places[j]) >= (sizes[i] + sizes[j]) / 2 - 1e-9).any()
    assert (places >= sizes / 2 - 1e-9).all()
    assert (places <= 1 - sizes / 2 + 1e-9).all()


def test_boxes_that_are_apart_stay():
    places, sizes = np.array([[0.2, 0.2], [0.7, 0.3]]), np.full((2, 2), 0.1)
    np.testing.assert_allclose(spread(places, sizes), places)
    crowded = spread(np.full((3, 2), 0.5), np.full((3, 2), 0.8))
    np.testing.assert_allclose(crowded, 0.5)  # where no place is free there is no better one


# Reconstructions --------------------------------------------------------------------------------


def test_reconstructions_are_pictures_where_rows_are_squares(models, rows, ax):
    assert models[2].plot_reconstructions(rows, 12, ax) is ax
    (image,) = ax.get_images()
    canvas = image.get_array()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["data", "rebuilt"] * 2
    first = canvas[1:5, 1:5].mean(axis=2)  # dark where the value is large
    order = np.argsort(rows[0])
    assert (np.diff(first.ravel()[order]) <= 0).all()
    assert first.max() - first.min() > 0.5
    rebuilt = models[2].inverse_transform(models[2].transform(rows[:1]))[0]
    below = canvas[6:10, 1:5].mean(axis=2)
    assert (np.diff(below.ravel()[np.argsort(rebuilt)]) <= 0).all()
    assert np.corrcoef(below.ravel(), rebuilt)[0, 1] < -0.9
    assert canvas.shape[1] == 6 * 5 + 1, "two bands of six"


def test_other_rows_are_curves(models, rows, ax):
    X = rows[:, :14]
    model = VAE(latent_dim=2, **QUICK).fit(X)
    model.plot_reconstructions(X, 3, ax)
    lines = ax.get_lines()
    assert len(lines) == 6
    np.testing.assert_allclose(lines[0].get_ydata(), X[0])
    np.testing.assert_allclose(lines[1].get_ydata(), model._rebuilt(X[:1])[0])
    step = X[1] - lines[2].get_ydata()
    np.testing.assert_allclose(step, step[0], rtol=1e-5)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["data", "rebuilt"]
    other = Figure().subplots()
    model.plot_reconstructions(X, 3, other, shape=(2, 7))
    assert other.get_images()[0].get_array().shape == (4 + 3, 3 * 8 + 1, 3)


def test_colours(ax):
    X = np.random.default_rng(0).random((5, 2 * 3 * 3))
    VAE(latent_dim=2, likelihood="squared_error", **QUICK).fit(X).plot_reconstructions(
        X, 1, ax, shape=(2, 3, 3)
    )
    tile = ax.get_images()[0].get_array()[1:3, 1:4]
    np.testing.assert_allclose(np.argsort(tile.ravel()), np.argsort(X[0]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 0}, ValueError, "n must be at least 1"),
        ({"shape": 4}, TypeError, r"shape must be \(height, width\), got 4"),
        ({"shape": (4,)}, ValueError, r"shape must be \(height, width\) or"),
        ({"shape": (4, 2, 2)}, ValueError, r"shape must be \(height, width\) or"),
        ({"shape": (4, 5)}, ValueError, r"shape \(4, 5\) has 20 values, but X has 16 features"),
        ({"X": np.zeros((3, 2))}, ValueError, "X has 2 features"),
        ({"X": 1.0}, ValueError, "Expected 2D array"),
        ({"X": [["a"] * 16]}, ValueError, "X must hold real numbers"),
    ],
)
def test_errors_of_reconstructions(models, rows, ax, arguments, error, message):
    with pytest.raises(error, match=message):
        models[2].plot_reconstructions(**{"X": rows, "ax": ax, **arguments})


def test_missing_values_are_left_out(ax):
    X, rebuilt = np.full((2, 16), np.nan), np.linspace(0, 1, 32).reshape(2, 16)
    draw_reconstructions(ax, X, rebuilt, (4, 4))
    tile = ax.get_images()[0].get_array()[1:5, 1:5].reshape(16, 3)
    np.testing.assert_allclose(tile, np.broadcast_to(to_rgb(YELLOW), (16, 3)), atol=0.01)
    curves = Figure().subplots()
    draw_reconstructions(curves, X, rebuilt, None)
    assert np.isnan(curves.get_lines()[0].get_ydata()).all()


# All of them ------------------------------------------------------------------------------------


def test_nothing_global_is_touched(models, rows, monkeypatch):
    """Axes of pyplot's where none are given, which are neither shown nor styled."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "show", lambda *a, **k: pytest.fail("was shown"))
    before = dict(matplotlib.rcParams)
    try:
        current = pyplot.figure().gca()
        assert models[2].plot_history() is current
        assert models[2].plot_latent(rows) is current
        assert models[2].plot_reconstructions(rows) is current
        assert current.spines["left"].get_edgecolor() == (*to_rgb("black"), 1.0)
    finally:
        pyplot.close("all")
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib(models, rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    model = models[2]
    for draw in (model.plot_history, lambda: model.plot_latent(rows)):
        with pytest.raises(ModuleNotFoundError, match=r'plot_.*: pip install "fastelbo\[plot\]"'):
            draw()
    with pytest.raises(ModuleNotFoundError, match="plot_reconstructions needs Matplotlib"):
        model.plot_reconstructions(rows)


def test_not_fitted(ax):
    for draw in (
        lambda model: model.plot_history(ax),
        lambda model: model.plot_latent([[1.0]], ax=ax),
        lambda model: model.plot_reconstructions([[1.0]], ax=ax),
    ):
        with pytest.raises(ValueError, match="not fitted yet"):
            draw(VAE())


def test_semi_supervised(rows):
    y = np.where(np.arange(52) < 20, np.arange(52) % 2, -1)
    model = SemiSupervisedVAE(latent_dim=2, **QUICK).fit(rows, y)
    model.history_["accuracy"] = [0.25, 0.5, 0.75]
    history, latents, rebuilt = Figure().subplots(3)
    model.plot_history(history)
    assert list(series_of(history)) == ["objective"]
    assert series_of(history.figure.axes[-1])["accuracy"].tolist() == model.history_["accuracy"]
    model.plot_latent(rows, model.predict(rows), latents)
    assert 1 <= len(named(latents)) <= 2
    model.plot_reconstructions(rows, 4, rebuilt)
    assert len(rebuilt.get_images()) == 1
