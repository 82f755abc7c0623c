"""The training of ``fastelbo.VAE``: what is checked before, and one epoch."""

import copy

import numpy as np

from fastelbo._arguments import as_whole, check_choice
from fastelbo._estimator import check_random_state, seed
from fastelbo._network import check_activation
from fastelbo._own_network import check_network
from fastelbo._reading import as_rows_or_batches
from fastelbo._training import (
    EarlyStopping,
    Training,
    check_stopping,
    diverged,
    latest,
    rows_apart,
    warn_of_collapse,
    warn_of_scale,
)
from fastelbo._vae_scores import held_out_parts
from fastelbo._vae_settings import (
    as_beta,
    as_dtype,
    as_learning_rate,
    check_domain,
    check_optimizer,
    check_same_network,
    prior_of_network,
    trained_likelihood,
    widths,
)
from fastelbo._visible import Visible
from fastelbo.divergences import as_free_bits
from fastelbo.locations import NoOptimalScale
from fastelbo.metrics import ACTIVE, Spread

#: The figures of an epoch; and those of rows that are held out.
HISTORY = ("elbo", "reconstruction", "kl", "beta", "active_units")
VALIDATION = ("val_elbo", "val_reconstruction", "val_kl")


class VAETraining(Training):
    """What of ``VAE`` trains."""

    #: The Likelihood of the parameter `likelihood`.
    _as_trained = staticmethod(trained_likelihood)

    def _fit(self, X):
        X = self._go_on(X) if self.warm_start and hasattr(self, "_model") else self._start(X)
        warn_of_scale(X.first(), self.likelihood_)
        data = rows_apart(self, X)
        stopping = EarlyStopping(self) if self.early_stopping else None
        try:
            with self._blas(self.batch_size):
                self._train(*data, stopping=stopping)
        finally:
            if stopping and hasattr(self, "_model"):
                stopping.restore_best()
        if self.n_iter_:
            best = stopping.best if stopping else None
            warn_of_collapse(best or latest(self.history_), self._model.latent_dim)

    def _fit_once(self, X):
        X = self._checked(X) if hasattr(self, "_model") else self._start(X)
        with self._blas(self.batch_size):
            self._train_once(X)

    def _checked(self, X):
        """X to train weights on that are there."""
        return self._checked_data(X, read=as_rows_or_batches).checked()

    def _start(self, X):
        """Check parameters and data, and draw new weights."""
        self._check_parameters()
        latent_dim, dtype = int(self.latent_dim), as_dtype(self.dtype)
        X = self._read(X, dtype)
        first = X.first()
        features = first.shape[1]
        likelihood = self._trained_likelihood(features, getattr(first.given, "columns", None))
        X = X.read_for(likelihood, check_domain).checked()
        visible = self._visible(likelihood, features)
        visible.learn(first)
        model = self._network(
            visible,
            widths(self.hidden),
            latent_dim,
            dtype,
            copy.deepcopy(prior_of_network(self.prior, latent_dim)),
            int(self.prior_components),
            self.activation,
            copy.deepcopy(self.encoder),
            copy.deepcopy(self.decoder),
        )
        generator = np.random.default_rng(seed(self.random_state))
        model.initialise(generator, rows_apart(self, X)[0].first())
        self._keep_features(first.given)
        self._model, self._generator = model, generator
        self.likelihood_ = likelihood
        self.history_ = {name: [] for name in HISTORY}
        self._score_key = int(generator.integers(1 << 63))
        return X

    def _read(self, X, dtype):
        """The rows of X for weights that are new."""
        return as_rows_or_batches(X, dtype, missing=self.missing == "nan")

    def _go_on(self, X):
        """Check parameters and data, of weights that are there."""
        self._check_parameters()
        network, prior = self._model, prior_of_network(self.prior, self.latent_dim)
        learned = network.prior_kind in ("mixture", "vamp")
        self._check_warm(
            hidden=(network.hidden, widths(self.hidden)),
            latent_dim=(network.latent_dim, self.latent_dim),
            activation=(network.activation, self.activation),
            encoder=(_kind(network.given["encoder"]), _kind(self.encoder)),
            decoder=(_kind(network.given["decoder"]), _kind(self.decoder)),
            dtype=(network.dtype.name, as_dtype(self.dtype).name),
            prior=(network.prior_kind, _kind_of_prior(prior, network.given_prior)),
            prior_components=(
                network.components,
                self.prior_components if learned else network.components,
            ),
        )
        return self._checked(X)

    def _trained_likelihood(self, features, names):
        """The likelihood over so many features of these names, if they have some."""
        likelihood = self._as_trained(self.likelihood)._over(features, names)
        if self.missing == "nan":
            likelihood = copy.copy(likelihood)
            likelihood._missing_nan = True
        return likelihood

    def _visible(self, likelihood, features):
        return Visible(likelihood, features, np.zeros(0) if self.missing == "nan" else None)

    def _check_parameters(self):
        """All that can be said of them without data."""
        widths(self.hidden)
        as_whole(self.latent_dim, "latent_dim", 1)
        as_whole(self.prior_components, "prior_components", 1)
        as_dtype(self.dtype)
        check_activation(self.activation)
        check_network(self.encoder, "encoder")
        check_network(self.decoder, "decoder")
        check_choice(self.missing, "missing", (None, "nan"))
        check_random_state(self.random_state)
        self._check_training()
        check_stopping(self)
        self._check_settings()

    def _check_settings(self):
        """Whatever may change between two epochs."""
        self._as_trained(self.likelihood)
        check_optimizer(self)
        as_free_bits(self.free_bits)
        prior = prior_of_network(self.prior, self.latent_dim)
        if prior != "standard" and self.free_bits != 0.0:
            raise ValueError(
                "free_bits needs a KL in closed form, which only the standard prior has"
            )
        as_whole(self.refine_steps, "refine_steps", 0)

    def _epoch(self, X, held_out=None):
        self._check_settings()
        names = getattr(self, "feature_names_in_", None)
        features = self._model.visible.features
        likelihood = self._trained_likelihood(features, names)
        check_same_network(self._visible(likelihood, features), self._model.visible)
        spread = Spread()
        sizes, parts, variances = [], [], []
        for rows in X.parts():
            found, of_scales, beta = self._pass(rows, likelihood, spread)
            sizes.append(len(rows))
            parts.append(found)
            variances.append(of_scales)
        shares = np.array(sizes) / sum(sizes)
        reconstruction, kl, penalty = (shares @ np.array(parts)).tolist()
        self.likelihood_ = likelihood._at_variances(means_of_known(shares, variances))
        active = int(np.sum(spread.variance() > ACTIVE))
        found = reconstruction - penalty, reconstruction, kl, beta, active
        return dict(zip(HISTORY, found, strict=True)) | self._validated(held_out, beta)

    def _pass(self, X, likelihood, spread):
        """Steps over all of X: (means of log p(x|z), KL and beta KL; squares of scales; beta)."""
        unchecked = copy.copy(likelihood)  # X has been checked: what may go wrong is the training
        unchecked._validate = False
        order = self._generator.permutation(len(X))
        X.expect(order)
        beta_at, rate_at = as_beta(self.beta), as_learning_rate(self.learning_rate)
        found, shares, variances = 0.0, [], []
        for start in range(0, len(X), self.batch_size):
            rows = order[start : start + self.batch_size]
            beta, rate = beta_at(self._model.steps), rate_at(self._model.steps)
            try:
                value, divergence = self._model.step(
                    X,
                    rows,
                    unchecked,
                    beta,
                    self.free_bits,
                    self._generator,
                    rate,
                    self.num_threads,
                    int(self.refine_steps),
                    self.weight_decay,
                    self.max_grad_norm,
                )
            except NoOptimalScale as error:
                self._diverged(X, error, rate)
            spread.update(self._model.mu)
            share = len(rows) / len(X)
            shares.append(share)
            variances.append(self._model.variances)
            weighed = share * value, share * divergence, share * beta * divergence
            found = found + np.array(weighed)
        elbo = found[0] - found[2]
        if not np.isfinite(elbo):
            self._diverged(X, f"ELBO {elbo}", rate)
        return found, means_of_known(shares, variances), beta

    def _validated(self, X, beta):
        """The figures of the rows held out, if there are any."""
        if X is None:
            return {}
        found = held_out_parts(
            self._model,
            self.likelihood_,
            X,
            self._score_key,
            self.free_bits,
            self._refined,
            self.num_threads,
        )
        elbo = found[0] - beta * found[1]
        return dict(zip(VALIDATION, (elbo, *found), strict=True))

    def _diverged(self, X, found, learning_rate):
        """Complain; what is left of the model is of no use."""
        del self._model
        epoch = len(self.history_["elbo"]) + 1
        raise diverged(epoch, found, X, self.likelihood_, learning_rate) from None


def means_of_known(shares, values):
    """Means of the columns of values (N, K) that are not NaN; NaN where all are."""
    values = np.array(values)
    known = ~np.isnan(values)
    weights = known * np.array(shares)[:, None]
    with np.errstate(invalid="ignore"):
        return np.sum(weights * values, axis=0, where=known) / weights.sum(axis=0)


def _kind(network):
    """What is said of a network of the user's."""
    return None if network is None else type(network).__name__


def _kind_of_prior(prior, before):
    """What is said of one, where `before` is what was given, or None."""
    if isinstance(prior, str):
        return prior
    names = ("mu", "logvar", "log_weights")
    if before is None or all(
        np.array_equal(getattr(prior, name), getattr(before, name)) for name in names
    ):
        return "given"
    return "another"
