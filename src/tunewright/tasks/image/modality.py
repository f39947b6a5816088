"""Pictures."""

from __future__ import annotations

from tunewright.data.image.augmentation import Augmentation, build_augmentation
from tunewright.errors import RecipeError
from tunewright.recipe.schema import Recipe
from tunewright.tasks.base.modality import Modality
from tunewright.tasks.base.targets import TargetEncoder
from tunewright.tasks.image.encoder import fit_pixels, frame_pictures, load_pixels
from tunewright.tasks.image.explain import explain_image
from tunewright.tasks.image.request import PictureRequest
from tunewright.training.objectives.base import Objective


def augment_pictures(recipe: Recipe, objective: Objective, target: TargetEncoder | None) -> Augmentation | None:
    """Return what `train.augment` asks for.

    Raises:
        RecipeError: an unknown step, or mixed pictures, which have shares of several classes, with another objective.
    """
    steps = recipe.train.augment
    found = build_augmentation(steps, seed=recipe.seed, classes=target.outputs if target else 0)
    if found is not None and found.mixes and not objective.takes_soft_targets:
        raise RecipeError(
            "mixed images have shares of several classes, which only cross_entropy supports",
            place="train.augment",
            found=objective.name,
            expected="train.objective: cross_entropy",
            fix="take mixup and cutmix out of train.augment",
        )
    return found


IMAGE = Modality(
    name="image",
    fit=fit_pixels,
    load=load_pixels,
    request=PictureRequest,
    explain=explain_image,
    frame=frame_pictures,
    augment=augment_pictures,
)
