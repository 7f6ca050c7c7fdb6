"""The parts of a spec that name data, splits, scores and limits; YAML's shape is the model's shape here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from jobspec.grammar.values import Value, encode

Name = Annotated[str, Field(min_length=1, max_length=1000)]


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys and converts no types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


class DataSpec(StrictModel):
    """Where the table is and which of its columns mean what."""

    path: Name | None = Field(None, description="A file, relative to the spec's folder.")
    builtin: Literal["breast_cancer", "diabetes", "digits", "iris", "wine"] | None = Field(
        None, description="One of scikit-learn's own data sets, instead of `path`."
    )
    format: Literal["csv", "parquet", "npy", "npz"] | None = Field(
        None, description="The file's format; taken from the file's name when it is missing."
    )
    target: Name | None = Field(
        None,
        description="The column to predict (in an NPZ, the array); built-in sets have their own.",
    )
    features: tuple[Name, ...] | None = Field(
        None, description="The columns to learn from; all but the other listed ones when it is missing."
    )
    drop: tuple[Name, ...] = Field((), description="Columns to leave out.")
    groups: Name | None = Field(None, description="The column with the groups of a grouped splitter.")
    weights: Name | None = Field(
        None,
        description="The column that goes to the last step's `fit` as `sample_weight`. Scores stay unweighted.",
    )
    types: dict[Name, Literal["string", "int", "float", "bool"]] = Field(
        {}, description="The type of a column that a reader would guess otherwise, as `zip: string`."
    )
    dtype: Literal["float64", "float32"] | None = Field(
        None, description="The type of the feature matrix; float64, or float32 where the file holds it."
    )
    rows: Annotated[int, Field(ge=1)] | None = Field(None, description="Read the first rows only, for a first try.")

    @model_validator(mode="after")
    def _check_source(self) -> DataSpec:
        if (self.path is None) == (self.builtin is None):
            given = "neither" if self.path is None else "both"
            raise PydanticCustomError(
                "source",
                f"`data` has {given} `path` and `builtin`; give exactly one, such as "
                "`path: table.csv` or `builtin: digits`.".replace("neither `path` and", "neither `path` nor"),
            )
        if self.builtin is not None:
            self._refuse_columns_of_builtin()
        elif self.target is None and self.format not in ("npy", "npz") and not _is_numpy(self.path):
            raise PydanticCustomError(
                "target", "`data` has no `target`; name the column to predict, such as `target: label`."
            )
        return self

    def _refuse_columns_of_builtin(self) -> None:
        for key in ("format", "target", "groups", "weights", "types"):
            if getattr(self, key):
                raise PydanticCustomError(
                    "builtin",
                    f"`data.{key}` does not go with `builtin: {self.builtin}`, whose columns are fixed; "
                    "remove it, or give a `path`.",
                )

    def reading_options(self) -> dict[str, Any]:
        """Return all that changes what is read, without the path, in canonical JSON-able form."""
        document = self.model_dump(mode="json", exclude={"path"})
        document["drop"] = sorted(set(self.drop))
        return document


def _is_numpy(path: str | None) -> bool:
    return path is not None and path.lower().endswith((".npy", ".npz"))


class CvSpec(StrictModel):
    """A splitter of ``sklearn.model_selection`` by class name, with its own parameters.

    In YAML the parameters stand beside ``kind``; ``test_fold`` of a PredefinedSplit names a column.
    """

    kind: str
    params: dict[str, Any] = {}

    def to_json(self) -> dict[str, Any]:
        """Encode canonically, for identities."""
        return {"kind": self.kind, "params": {key: encode(value) for key, value in self.params.items()}}


class ScorerSpec(StrictModel):
    """A metric of ``sklearn.metrics`` made a scorer, with make_scorer's own names.

    In YAML the metric's further parameters (``beta``, ``pos_label``) stand beside ``metric``.
    """

    metric: str
    greater_is_better: bool = True
    response_method: str | tuple[str, ...] = "predict"
    params: dict[str, Any] = {}

    def to_json(self) -> dict[str, Any]:
        """Encode canonically, for identities."""
        return {
            "metric": self.metric,
            "greater_is_better": self.greater_is_better,
            "response_method": encode(_plain_value(self.response_method)),
            "params": {key: encode(value) for key, value in self.params.items()},
        }


def _plain_value(value: str | tuple[str, ...]) -> Value:
    return value


class GridSearch(StrictModel):
    """Every candidate of every grid."""

    kind: Literal["grid"] = "grid"


class RandomSearch(StrictModel):
    """Candidates drawn from distributions, entry by entry, as RandomizedSearchCV draws them."""

    kind: Literal["random"] = "random"
    n_iter: Annotated[int, Field(ge=1, le=1_000_000)] = Field(10, description="Draws for each entry.")
    random_state: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = Field(
        None, description="The seed; without one the draws are made once and stored."
    )


class Resources(StrictModel):
    """What one task gets."""

    vcpus: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="Worker processes of a task. When missing: all usable CPUs of this machine; 4 on AWS."
    )
    memory_gib: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = Field(
        None, description="Memory of a task in GiB. When missing: what the machine has; 2 for each vCPU on AWS."
    )


class Limits(StrictModel):
    """What ends a cell or a task that would run for ever."""

    cell_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="A cell that runs longer is stopped and recorded as lost."
    )
    task_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="A task that runs longer is stopped; its unfinished cells are lost."
    )
