"""The catalogue: one row a public thing, for everything that visits every public thing.

Tests, ``parity``, ``bench``, asv, and the checks of ``fastelbo.torch`` iterate over `ROWS`; nothing
else lists what is public. ``tests/test_structure.py`` fails by name where a row is missing.
"""

from fastelbo._catalogue import (
    aggregate,
    amortization,
    columns,
    discrete,
    discrete_latents,
    disentanglement,
    divergences,
    elbo,
    experts,
    flows,
    importance,
    likelihoods,
    metrics,
    mixtures,
    multimodal,
    posterior,
    remedies,
    semi_supervised,
    survival,
)
from fastelbo._catalogue._row import (
    AXES,
    OF_ELEMENTS,
    REDUCTIONS,
    TOLERANCE,
    Bench,
    Case,
    Row,
    flatten,
    with_and_grad,
)

__all__ = [
    "AXES",
    "CASES",
    "OF_ELEMENTS",
    "REDUCTIONS",
    "ROWS",
    "TOLERANCE",
    "VARIANTS",
    "Bench",
    "Case",
    "Row",
    "flatten",
    "with_and_grad",
]

#: Every form of every likelihood, by label.
VARIANTS = {
    v.label: v for module in (likelihoods, discrete, survival, columns) for v in module.VARIANTS
}
#: Every row, by name.
ROWS = {
    row.name: row
    for rows in (
        posterior.ROWS,
        divergences.ROWS,
        discrete_latents.ROWS,
        likelihoods.ROWS,
        discrete.ROWS,
        survival.ROWS,
        columns.ROWS,
        elbo.rows(VARIANTS),
        importance.model_rows(VARIANTS),
        importance.ROWS,
        aggregate.rows(VARIANTS),
        disentanglement.ROWS,
        mixtures.ROWS,
        experts.ROWS,
        remedies.ROWS,
        metrics.ROWS,
        amortization.ROWS,
        flows.rows(VARIANTS),
        multimodal.ROWS,
        semi_supervised.ROWS,
    )
    for row in rows
}
#: Every case of every row, by name.
CASES = {case.name: case for row in ROWS.values() for case in row.cases}
