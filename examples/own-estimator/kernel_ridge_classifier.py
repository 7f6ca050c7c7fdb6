"""A classifier that scikit-learn does not have: kernel ridge regression on one column for each class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data


class KernelRidgeClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Fit +1 for a row's own class and -1 for the others by least squares, under a Gaussian kernel.

    One linear system serves all classes, so a fit costs O(rows^3) however many there are.

    Args:
        alpha: weight of the penalty; larger values smooth more.
        gamma: width of the kernel exp(-gamma |a - b|^2).
    """

    def __init__(self, alpha: float = 1.0, gamma: float = 0.001) -> None:
        # scikit-learn's contract: store the arguments as they are, check them in fit.
        self.alpha = alpha
        self.gamma = gamma

    def fit(self, X: ArrayLike, y: ArrayLike) -> KernelRidgeClassifier:
        """Solve (K + alpha I) A = Y, with one column of Y for each class.

        Raises:
            ValueError: alpha or gamma is not positive; foldfleet records it as the cell's result.
        """
        if self.alpha <= 0 or self.gamma <= 0:
            raise ValueError(f"alpha and gamma must be positive, got {self.alpha} and {self.gamma}")
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        signs = np.where(codes[:, np.newaxis] == np.arange(len(self.classes_)), 1.0, -1.0)
        kernel = rbf_kernel(rows, gamma=self.gamma)
        kernel[np.diag_indices_from(kernel)] += self.alpha
        self.coefficients_ = np.linalg.solve(kernel, signs)
        self.rows_ = rows
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the fitted values, rows x classes; with two classes those of the second, as scikit-learn expects."""
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        values: NDArray[np.float64] = rbf_kernel(rows, self.rows_, gamma=self.gamma) @ self.coefficients_
        return values[:, 1] if len(self.classes_) == 2 else values

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class of the largest value."""
        values = self.decision_function(X)
        winners = (values > 0).astype(int) if values.ndim == 1 else values.argmax(axis=1)
        labels: NDArray[Any] = self.classes_[winners]
        return labels
