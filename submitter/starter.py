"""The spec that `submit init` writes: it runs as it stands, and says what to change."""

from __future__ import annotations

import os
from pathlib import Path

from jobspec.errors import AccessError, UsageError

FILE_NAME = "foldfleet.yaml"

TEMPLATE = """\
# A foldfleet spec. Try it as it stands:  submit run foldfleet.yaml
# Check it after every change:            submit validate foldfleet.yaml
# What it would cost, before it runs:     submit plan foldfleet.yaml

name: my-search

data:
  builtin: digits              # one of scikit-learn's own sets; your own table instead:
  # path: table.csv            # .csv, .csv.gz, .parquet, .npy or .npz, relative to this file
  # target: label              # the column to predict
  # drop: [id]                 # columns to leave out

# Any splitter of sklearn.model_selection with its own parameters; `cv: 5` means what it means in scikit-learn.
cv: {kind: StratifiedKFold, n_splits: 5, shuffle: true, random_state: 0}

# Every candidate is one setting of one estimator: here 4 + 9 of them, on 5 folds: 65 cells.
candidates:
  - estimator: sklearn.ensemble.RandomForestClassifier
    params: {random_state: 0}
    grid: {n_estimators: [20, 50], max_features: [4, 8]}
  - pipeline:
      - scale: sklearn.preprocessing.StandardScaler
      - svc: sklearn.svm.SVC
    grid:                      # step__parameter, as in scikit-learn
      svc__C: [1, 10, 100]
      svc__gamma: {logspace: [-3, -2, 3]}

search: {kind: grid}           # or {kind: random, n_iter: 50, random_state: 0}, with `distributions:` above
scoring: [accuracy, f1_macro]  # scikit-learn's scorer names
refit: accuracy                # this score picks the winner, which is then fitted on all rows
"""


def write_starter(folder: Path) -> Path:
    """Write the spec into a folder, which is made if it is missing; an existing file is never touched.

    Raises:
        UsageError: the file is there already.
        AccessError: the folder cannot be written.
    """
    path = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise UsageError(
            f"{path} is there already and stays as it is. Name another folder, as in `submit init my-search`, "
            "or remove it first."
        ) from None
    except OSError as error:
        raise AccessError(f"{path} cannot be written: {error.strerror}. Name another folder.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(TEMPLATE)
    return path
