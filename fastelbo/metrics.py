"""What the latents of a trained model are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastelbo._arguments import as_number
from fastelbo._estimator import finite_matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fastelbo._typing import Number


#: A unit of more variance than this is active.
ACTIVE = 0.01


class Spread:
    """The variances of columns of rows that come a few at a time [1]_.

    .. [1] Chan, Golub, LeVeque. Algorithms for computing the sample variance. Am. Stat. 1983.
    """

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def update(self, rows):
        rows = np.asarray(rows, np.float64)
        with np.errstate(all="ignore"):
            mean = rows.mean(axis=0)
            off, count = mean - self.mean, self.count + len(rows)
            self.squares = self.squares + np.square(rows - mean).sum(axis=0)
            self.squares += off * off * (self.count * len(rows) / count)
            self.mean, self.count = self.mean + off * (len(rows) / count), count

    def variance(self):
        return self.squares / self.count


def active_units(mu: ArrayLike | Any, *, threshold: Number = ACTIVE) -> NDArray[np.bool_]:
    """Which latent dimensions tell data apart: Var_x(E_q[z|x]) > threshold [1]_.

    A dimension that has collapsed has the mean of the prior whatever x is; its variance over the
    data is next to 0, where one that is used has next to 1.

    Parameters
    ----------
    mu : array_like or Tensor, shape (N, L)
        Posterior means of data, as ``VAE.transform`` gives them. Of a tensor, on any device, the
        numbers are read.
    threshold : float, optional
        At least 0.

    Returns
    -------
    ndarray of bool, shape (L,)
        Its ``sum()`` is the number of active units.

    Raises
    ------
    ValueError, TypeError
        If mu is no matrix of finite numbers, or the threshold does not fit.

    References
    ----------
    .. [1] Burda, Grosse, Salakhutdinov. Importance weighted autoencoders. ICLR 2016.

    Examples
    --------
    >>> import fastelbo
    >>> fastelbo.active_units([[1.0, 0.3, 0.0], [-1.0, 0.1, 0.1]])
    array([ True, False, False])
    """
    threshold = as_number(threshold, "threshold", 0)
    if hasattr(mu, "detach"):
        mu = mu.detach().cpu().double().numpy()
    with np.errstate(over="ignore"):
        return np.var(finite_matrix(mu, np.float64, "mu"), axis=0) > threshold
