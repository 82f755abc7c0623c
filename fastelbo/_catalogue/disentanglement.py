"""Rows of the measures of disentanglement that are functions of arrays."""

import numpy as np

from fastelbo._catalogue._row import Bench, Case, Row

KEY = 0x0123456789ABCDEF
DATA = {"codes": "BL", "factors": "BE"}
POINTS = {"B": 2000, "L": 10, "E": 5}
NO_GRADIENT = "not differentiable"


def classes(rng, shape):
    """Of each factor as many values as fit into four, all of them there."""
    return rng.permuted(np.broadcast_to(np.arange(shape[0])[:, None] % 4, shape), axis=0)


def narrow(rng, shape):
    """log sigma^2 of posteriors that are narrower than the prior."""
    return rng.normal(size=shape) - 2


def importances(rng, shape):
    return rng.exponential(size=shape)


def _gap_magnitudes(codes, factors, logvar=None, **options):
    """Informations are differences of entropies or densities, gaps of two informations."""
    size = 2 * np.log(len(codes)) + 1
    if logvar is not None:
        size = size + (codes.max() - codes.min()) ** 2 * np.exp(-logvar.min())
    return 4 * size, 4 * size, size, size


def _dci_magnitudes(importance):
    return 2.0, 2.0, 2.0, 2.0


def _sap_magnitudes(codes, factors, **options):
    """Correlations are sums of products of standardised numbers: of 1 at most."""
    return 2.0, 2.0, 1.0


def _by_histogram(module, codes, factors, **options):
    return tuple(module.mutual_information_gap(codes, factors, **options))


def _by_density(module, codes, factors, logvar, **options):
    options = {"samples": 2 * len(codes), **options}
    return tuple(
        module.mutual_information_gap(
            codes, factors, estimator="density", logvar=logvar, rng=KEY, **options
        )
    )


def _sap(module, codes, factors, **options):
    return tuple(module.sap(codes, factors, continuous=True, **options))


def _dci(module, importance):
    return tuple(module.dci_from_importance(importance))


def _numpy_gap(codes, factors):
    gaps = []
    for factor in factors.T:
        values = np.unique(factor, return_inverse=True)[1]
        p = np.bincount(values) / len(values)
        found = []
        for code in codes.T:
            joint = np.histogram2d(code, values, (20, len(p)))[0] / len(code)
            apart = joint.sum(1, keepdims=True) * joint.sum(0)
            found.append(np.sum(joint[joint > 0] * np.log(joint[joint > 0] / apart[joint > 0])))
        best = np.sort([0.0, *found])
        gaps.append((best[-1] - best[-2]) / -np.sum(p * np.log(p)))
    return np.mean(gaps)


def _numpy_sap(codes, factors):
    dims = codes.shape[1]
    best = np.sort(np.corrcoef(codes.T, factors.T)[:dims, dims:] ** 2, axis=0)
    return np.mean(best[-1] - best[-2])


def _numpy_dci(importance):
    p = importance / importance.sum(1, keepdims=True)
    sure = 1 + np.sum(p * np.log(p + 1e-300), axis=1) / np.log(importance.shape[1])
    return np.sum(importance.sum(1) / importance.sum() * sure)


ROWS = (
    Row(
        "mutual_information_gap",
        (
            Case(
                "mutual_information_gap",
                _by_histogram,
                DATA,
                _gap_magnitudes,
                draws={"factors": classes},
                least={"B": 8},
                most={"L": 100},
                options=({"bins": 3},),
                has_reduction=False,
                batched=False,
                peers={"numpy": _numpy_gap},
            ),
            Case(
                "mutual_information_gap[density]",
                _by_density,
                {**DATA, "logvar": "BL"},
                _gap_magnitudes,
                draws={"factors": classes, "logvar": narrow},
                least={"B": 8},
                most={"L": 100},
                options=({"samples": 5},),
                has_reduction=False,
                batched=False,
                draws_noise=True,
                largest="BBL",
            ),
        ),
        (Bench("mutual_information_gap", "MIG of 2000 points", POINTS),),
        untwinned=NO_GRADIENT,
    ),
    Row(
        "sap",
        (
            Case(
                "sap",
                _sap,
                DATA,
                _sap_magnitudes,
                least={"B": 8},
                most={"L": 100},
                has_reduction=False,
                batched=False,
                peers={"numpy": _numpy_sap},
            ),
        ),
        (Bench("sap", "SAP of 2000 points", POINTS),),
        untwinned=NO_GRADIENT,
    ),
    Row(
        "dci_from_importance",
        (
            Case(
                "dci_from_importance",
                _dci,
                {"importance": "LE"},
                _dci_magnitudes,
                draws={"importance": importances},
                has_reduction=False,
                batched=False,
                peers={"numpy": _numpy_dci},
            ),
        ),
        (Bench("dci_from_importance", "D and C of importances", {"L": 50, "E": 20}),),
        untwinned=NO_GRADIENT,
    ),
)
