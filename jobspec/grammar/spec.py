"""The spec as the other parts see it: frozen, checked, with nodes instead of YAML's mappings."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, GetPydanticSchema
from pydantic_core import core_schema

from jobspec.grammar.data_models import (
    CvSpec,
    DataSpec,
    GridSearch,
    Limits,
    RandomSearch,
    Resources,
    ScorerSpec,
    StrictModel,
)
from jobspec.grammar.values import EstimatorNode, PipelineNode, encode

__all__ = [
    "CandidateEntry",
    "CvSpec",
    "DataSpec",
    "GridSearch",
    "Limits",
    "RandomSearch",
    "Resources",
    "ScorerSpec",
    "Spec",
]

SINGLE_SCORER = "score"

# Nodes are checked where they are made (`jobspec.grammar.convert`); pydantic would walk their recursive type.
Definition: TypeAlias = Annotated[
    EstimatorNode | PipelineNode,
    GetPydanticSchema(lambda _, __: core_schema.is_instance_schema((EstimatorNode, PipelineNode))),
]


class CandidateEntry(StrictModel):
    """One item under ``candidates``.

    A value in ``spaces`` is a list of values or a numeric generator; in ``distributions`` also a
    distribution. With a grid search ``distributions`` is empty; with a random search ``spaces`` is.
    """

    name: str | None = None
    definition: Definition
    spaces: tuple[dict[str, Any], ...] = ()
    distributions: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Encode canonically, for identities."""
        return {
            "name": self.name,
            "definition": encode(self.definition),
            "spaces": [_encode_space(space) for space in self.spaces],
            "distributions": [_encode_space(space) for space in self.distributions],
        }


class Spec(StrictModel):
    """One search: data, splits, candidates, scores and what to spend on them."""

    format: Literal[1] = 1
    name: str
    data: DataSpec
    cv: int | CvSpec = 5
    candidates: tuple[CandidateEntry, ...] = Field(min_length=1)
    search: GridSearch | RandomSearch = GridSearch()
    scoring: str | tuple[str, ...] | dict[str, str | ScorerSpec] | None = None
    refit: bool | str = True
    train_score: bool = False
    numerics: Literal["native", "portable"] | None = None
    resources: Resources = Resources()
    limits: Limits = Limits()

    def scorer_names(self) -> tuple[str, ...]:
        """Return the names of the scores; one unnamed scorer is called ``score``, as in cv_results_."""
        if self.scoring is None or isinstance(self.scoring, str):
            return (SINGLE_SCORER,)
        return tuple(self.scoring)

    def refit_scorer(self) -> str | None:
        """Return the name of the score that picks the winner to refit, or None for no refit."""
        if self.refit is False:
            return None
        names = self.scorer_names()
        return self.refit if isinstance(self.refit, str) and self.refit in names else names[0]

    def identity(self) -> dict[str, Any]:
        """Return the canonical content that makes two specs one run, as JSON-able data.

        Data and numerics enter a run's identity through the dataset's id and the engine; the run's name,
        the spelling of paths, resources and limits do not enter at all.
        """
        return {
            "cv": self.cv if isinstance(self.cv, int) else self.cv.to_json(),
            "candidates": [entry.to_json() for entry in self.candidates],
            "search": self.search.model_dump(mode="json"),
            "scoring": self.scoring_json(),
            "refit": self.refit_scorer(),
            "train_score": self.train_score,
        }

    def scoring_json(self) -> Any:
        """Return the scorers in canonical form; a list and the mapping of equal meaning agree."""
        if self.scoring is None or isinstance(self.scoring, str):
            return self.scoring
        if isinstance(self.scoring, tuple):
            return [[name, name] for name in self.scoring]
        return [
            [name, scorer if isinstance(scorer, str) else scorer.to_json()] for name, scorer in self.scoring.items()
        ]


def _encode_space(space: dict[str, Any]) -> dict[str, Any]:
    return {key: encode(value) for key, value in space.items()}
