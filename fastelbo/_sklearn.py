"""The bases of estimators: scikit-learn's where it is installed, else what stands in for them.

scikit-learn takes a second to import: only modules of estimators import this one, and the package
imports those when they are first asked for.
"""

from typing import TYPE_CHECKING

try:
    from sklearn.utils.validation import validate_data  # as the others, since 1.6
except ImportError:
    SKLEARN = False
else:
    SKLEARN = True

if not TYPE_CHECKING and SKLEARN:  # checkers read the types of what stands in: these have none
    from sklearn.base import (
        BaseEstimator,
        ClassifierMixin,
        ClassNamePrefixFeaturesOutMixin,
        DensityMixin,
        OutlierMixin,
        TransformerMixin,
        clone,
    )
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.metadata_routing import UNUSED
    from sklearn.utils.validation import check_is_fitted, column_or_1d
else:
    from fastelbo._without_sklearn import (
        UNUSED,
        BaseEstimator,
        ClassifierMixin,
        ClassNamePrefixFeaturesOutMixin,
        DensityMixin,
        NotFittedError,
        OutlierMixin,
        TransformerMixin,
        check_is_fitted,
        clone,
        column_or_1d,
        validate_data,
    )
