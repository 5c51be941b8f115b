"""Auto-encoders as methods, beyond what the shared suite asks of every method."""

from functools import partial

import pytest
import torch

from baselines.autoencoders.method import AutoEncoder, ConvolutionalAutoEncoder, VariationalAutoEncoder
from downstream.methods.loading import load_any
from pretrain.command import UserError
from pretrain.encoder import Encoder, make_encoder

TINY = {"size_px": 32, "width": 4, "instances": 24, "train_batch": 4}
NORMALS = list(torch.rand(8, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4)
tiny_cae = partial(ConvolutionalAutoEncoder, size_px=64, instances=14, train_batch=4)


def scores(method) -> torch.Tensor:
    return torch.cat([prediction.scores for prediction in method.predict(NORMALS)])


@pytest.mark.parametrize(
    "make",
    [
        partial(tiny_cae, model="mvtec", loss="mssim"),
        partial(tiny_cae, model="baseline", color="gray"),
        partial(tiny_cae, model="inception", loss="l2"),
        partial(tiny_cae, model="skip", residual="absolute"),
        partial(tiny_cae, model="backbone", color="gray"),
        partial(tiny_cae, model="inspection", skips=True, latent=8),
        partial(VariationalAutoEncoder, **TINY, loss="ssim"),
    ],
)
def test_every_member_learns_and_is_saved(make, tmp_path):
    method = make().fit([]).refer(NORMALS)
    assert method.normal_scores_.shape == method.normal_peaks_.shape == (1,)
    assert (method.normal_peaks_ >= method.normal_scores_).all()
    (prediction,) = method.predict(NORMALS)
    assert prediction.maps.shape == (8, 48, 48) and prediction.maps.min() >= 0
    method.save(tmp_path)
    assert torch.equal(scores(load_any(tmp_path)), prediction.scores)


def test_map_is_in_the_unit_of_the_score():
    """A score is the mean of a hundredth of the map's pixels, so it lies between its mean and its peak."""
    method = AutoEncoder(**TINY, blur=0.0, top_share=1.0).refer(NORMALS)
    (prediction,) = method.predict([torch.nn.functional.interpolate(normal[None], 32)[0] for normal in NORMALS])
    torch.testing.assert_close(prediction.scores, prediction.maps.mean((1, 2)))


def test_squared_map_by_hand():
    method = AutoEncoder(**TINY, blur=0.0).refer(NORMALS)
    image = torch.rand(1, 3, 32, 32)
    (prediction,) = method.predict(image)
    torch.testing.assert_close(prediction.maps[0], (method.reconstruct(image)[0] - image[0]).square().mean(0))


def test_a_handful_of_normals_is_trained_on_often_enough():
    method = AutoEncoder(size_px=32, width=4, train_batch=4)
    assert method.recipe(3, 300).epochs == 300 and method.recipe(180, 300).epochs == 30
    assert AutoEncoder(epochs=None).recipe(180).epochs == 100


def test_our_encoder_is_a_backbone_and_its_file_is_not_needed_again(tmp_path):
    file = tmp_path / "encoder.safetensors"
    Encoder("timm/test_resnet", 5).save(file)
    method = tiny_cae(model="backbone", start=str(file)).refer(NORMALS)
    assert method.recipe(7).frozen == 0.6 and method.network_.architecture == "timm/test_resnet"
    method.save(tmp_path / "model")
    file.unlink()
    assert torch.equal(scores(ConvolutionalAutoEncoder.load(tmp_path / "model")), scores(method))


def test_a_backbone_begins_with_imagenets_weights():
    method = tiny_cae(model="backbone")
    stages = method.make_network().stages.state_dict()
    encoder = make_encoder(start="imagenet").stages.state_dict()
    assert all(torch.equal(stages[name], weight) for name, weight in encoder.items())
    assert method.recipe(7).frozen == 0.6 and tiny_cae(model="backbone", start="random").recipe(7).frozen == 0


def test_learning_does_not_depend_on_batch_size():
    first, second = (AutoEncoder(**TINY, batch_size=batch_size).refer(NORMALS) for batch_size in (1, 16))
    for ours, theirs in zip(first.network_.state_dict().values(), second.network_.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(first.normal_scores_, second.normal_scores_)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "eae"}, "there is no auto-encoder 'eae'"),
        ({"size_px": 100}, "a power of two"),
        ({"loss": "mae"}, "did you mean mse"),
        ({"color": "grey"}, "did you mean gray"),
        ({"residual": "signed"}, "there is no residual"),
        ({"augmentation": "turned"}, "there is no augmentation"),
        ({"epochs": 0}, "epochs must be above 0, not 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"top_share": 1.5}, "at most 1"),
        ({"blur": 0.5}, "from 0 to 0.15"),
        ({"loss": "ssim", "window_px": 99}, "from 3 to 31"),
        ({"model": "mvtec", "size_px": 64}, "no option width"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        AutoEncoder(**{"size_px": 32, "width": 4, **arguments}).refer(NORMALS)


def test_no_normals_and_damaged_files(tmp_path):
    with pytest.raises(UserError, match="at least one"):
        AutoEncoder().refer([])
    method = AutoEncoder(**TINY).refer(NORMALS)
    method.width = 8
    method.save(tmp_path)
    with pytest.raises(UserError, match="fit the model again"):
        AutoEncoder.load(tmp_path)
