"""How each auto-encoder was published to be trained."""

from dataclasses import replace

from baselines.autoencoders.training import Recipe

PLAIN = Recipe(loss="mse", epochs=100, batch=32, learning_rate=1e-3)
CONVOLUTIONAL = Recipe(loss="ssim", epochs=100, batch=16, learning_rate=2e-4, weight_decay=1e-5, augmentation="moved")
INSPECTION = Recipe(loss="mse", epochs=50, batch=16, learning_rate=1e-4, augmentation="flipped", plateau=5, patience=10)
OF_THEIR_OWN = {"ae": PLAIN, "vae": PLAIN, "inspection": INSPECTION}
# Of the epochs, those in which a pretrained backbone stays as it is.
FROZEN_SHARE = 0.6


def recipe_of(model: str, is_pretrained: bool = False, given: dict | None = None) -> Recipe:
    """The recipe of an architecture, with what was `given` that is not none. A backbone with random weights is trained
    from the start: there is nothing in it to keep."""
    recipe = OF_THEIR_OWN.get(model, CONVOLUTIONAL)
    chosen = {name: value for name, value in (given or {}).items() if value is not None}
    return replace(recipe, frozen=FROZEN_SHARE if is_pretrained else 0.0, **chosen)
