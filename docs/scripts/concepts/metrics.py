r"""
Metrics of disentanglement
==========================

Where the factors that made the data are known, one can ask which code tells which. Three measures,
for codes :math:`z_i` and factors :math:`v_j`:

.. math::

   \begin{aligned}
   \mathrm{MIG} &= \operatorname{mean}_j \; \frac{I(z_{(1)}; v_j) - I(z_{(2)}; v_j)}{H(v_j)} \\
   \mathrm{SAP} &= \operatorname{mean}_j \; (S_{(1)j} - S_{(2)j}), \quad
   S_{ij} \text{ how well } z_i \text{ alone predicts } v_j \\
   \mathrm{D} &= \sum_i \rho_i \, (1 - H(P_{i \cdot})), \quad
   \mathrm{C} = \sum_j \rho_j \, (1 - H(P_{\cdot j}))
   \end{aligned}

(1) and (2) are the best and the second best code of a factor, P the importances of codes for
factors, normalised, and :math:`\rho` their shares. They are
:func:`fastelbo.mutual_information_gap`, :func:`fastelbo.sap` and :func:`fastelbo.dci`.
"""

# %%
# Two factors; codes that are the factors, turned by an angle. At 45 degrees both codes know as much
# of each. SAP is that of quantities, ``continuous=True``, and DCI is shown for importances that are
# squared correlations, to spare the trees that :func:`fastelbo.dci` grows.

import matplotlib.pyplot as plt
import numpy as np

import fastelbo

rng = np.random.default_rng(0)
factors = rng.integers(0, 5, (2000, 2))
centred = factors - factors.mean(axis=0)
angles, found = np.linspace(0, 45, 10), []
for angle in np.radians(angles):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    codes = centred @ turn
    importance = np.corrcoef(codes.T, factors.T)[:2, 2:] ** 2
    found.append(
        (
            fastelbo.mutual_information_gap(codes, factors).score,
            fastelbo.sap(codes, factors, continuous=True).score,
            fastelbo.dci_from_importance(importance).disentanglement,
        )
    )

figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for name, values in zip(("MIG", "SAP", "D of DCI"), zip(*found, strict=True), strict=True):
    ax.plot(angles, values, "o-", label=name)
    print(f"{name:9} {values[0]:.3f} at 0 degrees, {values[-1]:.3f} at 45")
ax.set(xlabel="degrees that the codes are turned by")
ax.legend()

# %%
# See also
# --------
#
# :func:`fastelbo.active_units`; on trained models: :doc:`/gallery/disentanglement`.
