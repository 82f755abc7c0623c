"""CountVAE beside scvi-tools' SCVI, where that is installed: pip install "fastelbo[scvi]"."""

import importlib.util
import time

import numpy as np
import pytest

from fastelbo import CountVAE
from tests.example_scripts import loaded

EPOCHS = 20


def of_scvi(adata):
    """(the latent space of SCVI, trained for as many epochs, seconds of the processor)."""
    import scvi

    scvi.settings.seed, scvi.settings.num_threads = 0, 1
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = scvi.model.SCVI(adata, gene_likelihood="nb")
    options = {"enable_progress_bar": False, "enable_checkpointing": False, "logger": False}
    start = time.process_time()
    model.train(EPOCHS, accelerator="cpu", train_size=1.0, **options)
    return model.get_latent_representation(), time.process_time() - start


@pytest.mark.filterwarnings("ignore")  # of its libraries'
@pytest.mark.skipif(importlib.util.find_spec("scvi") is None, reason="needs scvi-tools")
def test_separates_types_no_worse_and_mixes_batches_better():
    """Where neighbours of raw counts are often of another type, and all are of one batch."""
    import anndata

    example = loaded("single_cells")
    counts, kind, batch = example.generated_cells(5000, 2000)
    adata = anndata.AnnData(counts.astype(np.float32))
    adata.obs["batch"] = batch.astype(str)
    start = time.process_time()
    model = CountVAE(epochs=EPOCHS, batch_key="batch", random_state=0).fit(adata)
    seconds = time.process_time() - start
    found = model.transform(adata), seconds
    theirs = of_scvi(adata)
    types, batches = (
        [example.accuracy(Z, labels) for Z, _ in (found, theirs)] for labels in (kind, batch)
    )
    for name, of_type, of_batch, (_, took) in zip(
        ("CountVAE", "SCVI"), types, batches, (found, theirs), strict=True
    ):
        print(f"{name:9} type {of_type:.3f}, batch {of_batch:.3f}, {took:.1f} s of one processor")
    assert types[0] >= types[1]
    assert batches[0] <= batches[1]
    assert batches[0] < np.bincount(batch).max() / len(batch) + 0.05
    totals = model.normalized_expression(adata, library_size="observed").sum(axis=1)
    np.testing.assert_allclose(totals, counts.sum(axis=1), rtol=1e-4)
    drawn = model.posterior_predictive(adata, rng=0).sum(axis=1)
    assert drawn.mean() == pytest.approx(counts.sum(axis=1).mean(), rel=0.05)
