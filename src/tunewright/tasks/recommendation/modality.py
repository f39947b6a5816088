"""Who chose what: rows of fields, or the items of each user."""

from __future__ import annotations

from tunewright.tasks.base.modality import Modality
from tunewright.tasks.recommendation.categorical_encoder import fit_fields, load_fields
from tunewright.tasks.recommendation.explain import explain_click, explain_recommendation
from tunewright.tasks.recommendation.export import export_recommender
from tunewright.tasks.recommendation.interaction_encoder import fit_interactions, load_interactions
from tunewright.tasks.recommendation.request import FieldRequest, UserRequest

FIELDS = Modality(name="fields", fit=fit_fields, load=load_fields, request=FieldRequest, explain=explain_click)
INTERACTIONS = Modality(
    name="interactions",
    fit=fit_interactions,
    load=load_interactions,
    request=UserRequest,
    explain=explain_recommendation,
    export_case=export_recommender,
    finds_columns=True,
)
