"""The scikit-learn engine: from values to live estimators, checks, and fitted, scored cells."""
