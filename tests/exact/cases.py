"""The searches whose tables must equal scikit-learn's."""

from __future__ import annotations

from tests.exact.classification import CLASSIFICATION
from tests.exact.compositions import COMPOSITIONS
from tests.exact.reference import Search
from tests.exact.regression import REGRESSION

SEARCHES: dict[str, Search] = CLASSIFICATION | REGRESSION | COMPOSITIONS
