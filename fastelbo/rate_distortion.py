"""The rate-distortion curve of a VAE: a model for each beta, begun where the last one ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastelbo import _arrays
from fastelbo._arguments import as_flag, as_numbers, as_whole
from fastelbo._decoders import is_vae
from fastelbo._plots import BLUE, RED, axes_of
from fastelbo._reading import as_rows
from fastelbo._vae_settings import as_dtype, check_domain, trained_likelihood

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastelbo._typing import Float64Array
    from fastelbo.vae import VAE


class RateDistortion(NamedTuple):
    """Points of a rate-distortion curve, each (number of betas,), in nats.

    Attributes
    ----------
    beta : ndarray
        Ascending.
    rate : ndarray
        Mean KL(q(z|x) || p(z)) over the training data.
    distortion : ndarray
        Mean -E_q[log p(x|z)] over the training data.
    test_rate, test_distortion : ndarray or None
        The same over test data.
    """

    beta: Float64Array
    rate: Float64Array
    distortion: Float64Array
    test_rate: Float64Array | None
    test_distortion: Float64Array | None

    def plot(self, ax: Any = None) -> Any:
        """Distortion over rate, by Matplotlib; test data dashed.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default the current axes of pyplot.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ModuleNotFoundError
            If Matplotlib is not there.
        """
        ax = axes_of(ax, "plot")
        ax.plot(self.rate, self.distortion, "o-", color=BLUE, label="training data")
        if self.test_rate is not None:
            ax.plot(self.test_rate, self.test_distortion, "s--", color=RED, label="test data")
            ax.legend()
        for beta, *point in zip(self.beta, self.rate, self.distortion, strict=True):
            below = {"xytext": (-5, -3), "textcoords": "offset points", "ha": "right", "va": "top"}
            ax.annotate(f"{beta:.3g}", point, fontsize="small", **below)
        ax.margins(0.1)
        ax.set(xlabel="rate: KL [nats]", ylabel="distortion: -E log p(x|z) [nats]")
        return ax


def rate_distortion(
    model: VAE,
    X: ArrayLike,
    betas: ArrayLike,
    *,
    X_test: ArrayLike | None = None,
    epochs: int | None = None,
    verbose: bool = False,
) -> RateDistortion:
    """Rates and distortions of a VAE over a grid of beta [1]_.

    A beta-VAE minimises D + beta R, with distortion D = -E[log p(x|z)] and rate
    R = KL(q(z|x) || p(z)): its point is where a line of slope -beta touches the curve of what
    networks of that size can do, which is convex and falls. beta is the price of a nat of the code
    in nats of distortion. Read as an information bottleneck [2]_, R bounds what the code keeps of
    x, I(x; z), from above, and H(x) - D from below: a large beta asks for little, and at last for
    nothing (D = H(x) for a perfect decoder, R = 0, the collapsed model); a small one asks for all.
    beta = 1 is the ELBO, -(D + R).

    Training begins at the smallest beta as ``fit`` does, from new weights for the model's `epochs`,
    and goes on to the next larger beta with the weights of the last.

    Parameters
    ----------
    model : VAE
        Its parameters are taken, all but `beta`; it is not changed itself. A likelihood whose scale
        is found in training (``"gaussian"``) measures each distortion by another scale.
    X : array_like, shape (N, D)
    betas : array_like
        Different numbers, not negative, in any order.
    X_test : array_like, shape (M, D), optional
        To be measured, too.
    epochs : int, optional
        Passes over X at each further beta; by default as many as at the first.
    verbose : bool, optional
        Show a progress bar where tqdm is installed.

    Returns
    -------
    RateDistortion

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; then nothing has been trained.
    FloatingPointError
        If training diverges.

    References
    ----------
    .. [1] Alemi, Poole, Fischer, Dillon, Saurous, Murphy. Fixing a broken ELBO. ICML 2018.
    .. [2] Tishby, Pereira, Bialek. The information bottleneck method. Allerton 1999.

    Examples
    --------
    >>> import numpy as np
    >>> import fastelbo
    >>> X = np.random.default_rng(0).integers(0, 2, (200, 4)).repeat(4, axis=1)
    >>> model = fastelbo.VAE(latent_dim=4, hidden=(32,), learning_rate=1e-2, random_state=0)
    >>> curve = fastelbo.rate_distortion(model, X, [0.2, 1, 5], epochs=30)
    >>> bool(np.all(np.diff(curve.rate) < 0) and np.all(np.diff(curve.distortion) > 0))
    True
    """
    if not is_vae(model):
        raise TypeError(f"model must be a VAE, got {type(model).__name__}")
    from fastelbo._sklearn import clone  # by now imported, as the model's module is
    from fastelbo._training import Progress, latest

    betas = _as_betas(betas)
    epochs = as_whole(epochs, "epochs", 1, optional=True)
    verbose = as_flag(verbose, "verbose")
    model = clone(model).set_params(beta=betas[0])
    model._check_parameters()
    measured = [_checked(model, X, "X")]
    if X_test is not None:
        measured.append(_checked(model, X_test, "X_test"))
        if measured[1].shape[1] != measured[0].shape[1]:
            expected = f"(samples, {measured[0].shape[1]}) like X"
            raise _arrays.shape_error("X_test", measured[1].shape, expected)
    parts = np.empty((len(betas), len(measured), 2))
    passes = [model.epochs] + [epochs or model.epochs] * (len(betas) - 1)
    with Progress(sum(passes), verbose) as progress:
        for beta, count, point in zip(betas, passes, parts, strict=True):
            model.set_params(beta=beta)
            for _ in range(count):
                model.partial_fit(measured[0].given)
                progress.update(latest(model.history_))
            for data, of_data in zip(measured, point, strict=True):
                of_data[:] = [part.mean() for part in model.score_parts(data.given)]
    distortion, rate = -parts[..., 0].T, parts[..., 1].T
    test = (None, None) if X_test is None else (rate[1], distortion[1])
    return RateDistortion(np.array(betas), rate[0], distortion[0], *test)


def _checked(model, X, name):
    """The rows of X, which the model can be trained on and score."""
    rows = as_rows(X, as_dtype(model.dtype), name)
    likelihood = trained_likelihood(model.likelihood)._over(rows.shape[1], None)
    return rows.read_for(likelihood, check_domain).checked()


def _as_betas(betas):
    """Ascending Python floats."""
    betas = as_numbers(betas, "betas")
    if betas.ndim != 1 or not betas.size:
        raise _arrays.shape_error("betas", betas.shape, "(number of betas,)")
    betas = np.sort(betas)
    if not (betas[0] >= 0 and np.isfinite(betas).all()):
        raise ValueError(f"betas must be finite and not negative, got {betas}")
    if (np.diff(betas) == 0).any():
        raise ValueError(f"betas must differ, got {betas}")
    return betas.tolist()
