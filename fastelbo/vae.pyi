from os import PathLike
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastelbo._estimator import Estimator
from fastelbo._estimator import NotFittedError as NotFittedError
from fastelbo._typing import Float64Array, FloatArray, Rng
from fastelbo.divergences import FreeBits
from fastelbo.likelihoods import Likelihood
from fastelbo.priors import MixtureOfGaussians, StandardNormal

_LikelihoodName: TypeAlias = Literal["bernoulli", "gaussian", "squared_error"]

class VAE(Estimator):
    hidden: tuple[int, ...] | list[int] | int
    latent_dim: int
    likelihood: _LikelihoodName | Likelihood
    prior: Literal["standard", "mixture", "vamp"] | StandardNormal | MixtureOfGaussians | None
    prior_components: int
    beta: float
    free_bits: float | FreeBits
    epochs: int
    batch_size: int
    learning_rate: float
    dtype: DTypeLike
    random_state: int | np.random.Generator | np.random.RandomState | None
    num_threads: int | None
    verbose: bool
    likelihood_: Likelihood
    history_: dict[str, list[float]]
    n_features_in_: int
    def __init__(
        self,
        *,
        hidden: tuple[int, ...] | list[int] | int = ...,
        latent_dim: int = ...,
        likelihood: _LikelihoodName | Likelihood = ...,
        prior: Literal["standard", "mixture", "vamp"]
        | StandardNormal
        | MixtureOfGaussians
        | None = ...,
        prior_components: int = ...,
        beta: float = ...,
        free_bits: float | FreeBits = ...,
        epochs: int = ...,
        batch_size: int = ...,
        learning_rate: float = ...,
        dtype: DTypeLike = ...,
        random_state: int | np.random.Generator | np.random.RandomState | None = ...,
        num_threads: int | None = ...,
        verbose: bool = ...,
    ) -> None: ...
    def fit(self, X: ArrayLike, y: object = ...) -> Self: ...
    def partial_fit(self, X: ArrayLike, y: object = ...) -> Self: ...
    def fit_transform(self, X: ArrayLike, y: object = ...) -> FloatArray: ...
    def transform(self, X: ArrayLike) -> FloatArray: ...
    def inverse_transform(self, Z: ArrayLike) -> FloatArray: ...
    def sample(self, n: int = ..., *, rng: Rng = ...) -> FloatArray: ...
    @property
    def prior_(self) -> StandardNormal | MixtureOfGaussians: ...
    def score_samples(
        self, X: ArrayLike, *, samples: int | None = ..., rng: Rng = ...
    ) -> Float64Array: ...
    def score_parts(self, X: ArrayLike, *, rng: Rng = ...) -> tuple[Float64Array, Float64Array]: ...
    def score(self, X: ArrayLike, y: object = ...) -> float: ...
    def get_feature_names_out(self, input_features: object = ...) -> NDArray[np.object_]: ...
    @property
    def n_iter_(self) -> int: ...
    @property
    def n_parameters_(self) -> int: ...
    def save(self, path: str | PathLike[str]) -> None: ...
    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self: ...
