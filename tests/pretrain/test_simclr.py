"""SimCLR as one module: what is trained, what decays, and that two processes train what one would."""

import numpy as np
import pytest
import torch
from pretended_gpu import pretended_gpu
from torch import Tensor, nn
from two_ranks import run_as_torchrun

from pretrain.command import UserError
from pretrain.config import Config
from pretrain.encoder import make_encoder
from pretrain.simclr import (
    SimCLR,
    batch_members,
    make_optimizer,
    make_views,
    parameter_groups,
    synchronized,
    train_mode,
)
from pretrain.training.fabric import make_fabric, rank_positions
from pretrain.training.run import Run

CONFIG = Config(
    size_px=32,
    batch=8,
    crop_area_min=0.3,
    jitter=0.1,
    blur=0.3,
    synthetic_negatives=True,
    dense_weight=1.0,
    freeze_batch_norm=True,
)
IMAGES = 20


def simclr(image_weight: float = 0.3, dense_weight: float = 1.0) -> SimCLR:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SimCLR(make_encoder("resnet18", input_size_px=32), image_weight, dense_weight, temperature=0.2)


def views_of(config: Config, step: int, positions: np.ndarray) -> tuple[Tensor, Tensor | None]:
    """As the training loop makes them."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 48, 48, 3), dtype=np.uint8)
    chosen = batch_members(config, step, IMAGES)
    own, others = (torch.from_numpy(pixels[chosen[wanted]]) for wanted in (positions, positions - 1))
    return make_views(config, step, positions, own, others)


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    return views_of(CONFIG, 0, np.arange(4))


@pytest.mark.parametrize(("image", "dense"), [(0.3, 1.0), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("is_synthetic", [True, False])
def test_all_that_is_trained_and_nothing_else_gets_a_gradient(image, dense, is_synthetic, batch):
    """So DDP, which waits for the gradient of whatever requires one, has nothing to search for."""
    module = simclr(image, dense)
    views, masks = batch if is_synthetic else (batch[0][:8], None)
    module(views, masks, 0, 0, range(4)).loss.backward()
    unused = (() if image else ("projection.", "encoder.stages.level4.")) + (() if dense else ("dense.",))
    for name, parameter in module.named_parameters():
        is_used = not name.startswith(unused)
        assert parameter.requires_grad == is_used, name
        assert (parameter.grad is not None) == is_used, name
    assert any(parameter.grad.abs().max() > 1e-4 for parameter in module.encoder.stages["level1"].parameters())
    assert all(any(name.startswith(part) for name, _ in module.named_parameters()) for part in unused)


def test_the_projection_head_is_lightlys():
    from lightly.models.modules.heads import SimCLRProjectionHead

    ours, theirs = simclr().projection, SimCLRProjectionHead(512, 512, 128)
    theirs.layers.load_state_dict(ours.state_dict())
    h = torch.randn(6, 512)
    assert torch.equal(ours(h), theirs(h))


def test_the_loss_is_the_weighted_sum_of_its_parts(batch):
    def losses(image: float, dense: float):
        with torch.no_grad():
            return simclr(image, dense)(*batch, 0, 0, range(4))

    both, image, dense = losses(0.3, 2.0), losses(1.0, 0.0), losses(0.0, 1.0)
    assert both.loss == pytest.approx(0.3 * image.loss.item() + 2 * dense.loss.item(), rel=1e-6)
    assert (both.image, both.dense) == pytest.approx((image.loss.item(), dense.loss.item()), rel=1e-6)
    assert (both.image, both.dense) == pytest.approx((image.image.item(), dense.dense.item()), rel=1e-6)
    assert image.dense == 0 and dense.image == 0
    assert both.accuracy == image.accuracy
    assert min(image.loss, dense.loss) > 0.1 and abs(image.loss - dense.loss) > 0.1


def test_parts_of_the_loss_keep_no_graph(batch):
    losses = simclr()(*batch, 0, 0, range(4))
    assert losses.loss.requires_grad
    assert not any(part.requires_grad for part in (losses.image, losses.dense, losses.accuracy))


def test_synthetic_defects_make_it_harder(batch):
    """More negatives, and near ones; the batch statistics are kept apart from it."""
    module = simclr()
    train_mode(module, CONFIG.freeze_batch_norm)
    with torch.no_grad():
        with_synthetic = module(*batch, 0, 0, range(4))
        without = module(batch[0][:8], None, 0, 0, range(4))
    assert with_synthetic.image > without.image + 0.05 and with_synthetic.dense > without.dense + 0.05


@pytest.mark.parametrize("architecture", ["resnet18", "convnext_tiny"])
def test_nothing_with_one_dimension_decays(architecture):
    """ConvNeXt's factors of a residual, (c, 1, 1), are one number a channel too."""
    module = nn.ModuleDict({"encoder": make_encoder(architecture), "head": nn.Linear(4, 2)})
    module["encoder"].stages["level4"].requires_grad_(False)
    decaying, others = parameter_groups(module, 0.05)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.05, 0.0)
    groups = [*decaying["params"], *others["params"]]
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert len(groups) == len(trained) and {*map(id, groups)} == {*map(id, trained)}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    assert all(parameter.ndim > 1 for parameter in decaying["params"])
    assert {names[id(parameter)].rsplit(".", 1)[1] for parameter in decaying["params"]} == {"weight"}
    assert any(names[id(parameter)] == "head.weight" for parameter in decaying["params"])
    assert all(parameter.numel() == max(parameter.shape) for parameter in others["params"])


@pytest.mark.parametrize(("name", "kind"), [("adamw", "AdamW"), ("sgd", "SGD"), ("lars", "LARS")])
def test_optimizers_by_name(name, kind):
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = make_optimizer(name, module, 0.25, 1e-3)
    assert type(optimizer).__name__ == kind
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.25, 1e-3), (0.25, 0.0)]
    assert name == "adamw" or {group["momentum"] for group in optimizer.param_groups} == {0.9}
    before = [parameter.detach().clone() for parameter in module.parameters()]
    (module(torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])) ** 3).sum().backward()
    bias_gradient = module[1].bias.grad.clone()
    optimizer.step()
    assert not torch.equal(module[0].weight, before[0])
    if name != "adamw":  # no decay, no layer-wise scaling: the plain step
        torch.testing.assert_close(module[1].bias, before[3] - 0.25 * bias_gradient)


def test_lars_scales_whatever_the_gradient():
    """Its first step has a length of rate times trust times the weight's own: no weight decay, no such scaling."""
    layer = nn.Linear(4, 3, bias=False)
    before = layer.weight.detach().clone()
    optimizer = make_optimizer("lars", layer, 0.5, 1e-6)
    layer.weight.grad = 1000 * torch.randn(3, 4)
    optimizer.step()
    assert (layer.weight.detach() - before).norm().item() == pytest.approx(0.5 * 0.001 * before.norm().item(), rel=1e-3)
    with pytest.raises(UserError, match="--weight-decay"):
        make_optimizer("lars", layer, 0.5, 0.0)


@pytest.mark.parametrize(
    ("recipe", "is_synthetic", "backend"),
    [("dense", True, "kornia"), ("dense", False, "fast"), ("simclr", False, "kornia")],
)
def test_a_step_on_a_gpu_never_waits_for_it(recipe, is_synthetic, backend):
    """On a GPU that is pretended, from bytes that lie there to the weights after the step."""
    config = Config(recipe=recipe, size_px=32, batch=4, synthetic_negatives=is_synthetic, views=backend)
    positions = np.arange(4)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), np.uint8))
    with pretended_gpu() as gpu:
        module = simclr(config.image_weight, config.dense_weight).to(gpu.device)
        optimizer = make_optimizer("adamw", module, 0.01, 1e-4)
        before = [weights.cpu() for weights in module.parameters()]
        pixels = pixels.to(gpu.device)
        for step in range(2):  # in the first, constants are sent there
            gpu.waits.clear()
            views, masks = make_views(config, step, positions, pixels, pixels.roll(1, 0) if is_synthetic else None)
            losses = module(views, masks, 0, step, positions)
            losses.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert gpu.waits == []
        assert losses.loss.device == gpu.device and losses.loss.isfinite()
        assert any(not torch.equal(old, new.cpu()) for old, new in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_weights_move_alike_in_one_kernel_and_one_by_one(name):
    """torch has its fused kernels for CPUs too."""
    results = []
    for fused in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(4, 3)
        optimizer = make_optimizer(name, layer, 0.1, 1e-2, fused)
        for _ in range(3):
            layer(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        results.append([weights.detach() for weights in layer.parameters()])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("began_fused", [True, False])
def test_a_run_goes_on_with_the_other_devices_optimizer(name, began_fused, tmp_path):
    """What a GPU has in one kernel, a CPU has one by one, and each takes up the other's checkpoint."""

    def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        module(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()

    def fresh(fused: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Linear(4, 3)
        return layer, make_optimizer(name, layer, 0.1, 1e-2, fused)

    whole, begun, gone_on = fresh(not began_fused), fresh(began_fused), fresh(not began_fused)
    for _ in range(2):
        step(*whole), step(*begun)
    Run(tmp_path).save(*begun, {"step": 2})
    Run(tmp_path).restore(*gone_on)
    step(*whole), step(*gone_on)
    for uninterrupted, resumed in zip(whole[0].parameters(), gone_on[0].parameters(), strict=True):
        torch.testing.assert_close(resumed, uninterrupted, rtol=1e-5, atol=1e-7)
    assert begun[1].state_dict()["state"].keys() == gone_on[1].state_dict()["state"].keys()


def three_steps() -> tuple[list[Tensor], dict[str, Tensor]]:
    """SGD as the training loop does it, in float64 with batch normalization frozen: the losses and the weights."""
    said = []
    fabric = make_fabric("cpu", "64-true")
    module = simclr()
    optimizer = make_optimizer("sgd", module, 0.01, 1e-4)
    model, stepper = fabric.setup(module.to(memory_format=torch.channels_last), optimizer)
    train_mode(module, CONFIG.freeze_batch_norm)
    positions = rank_positions(CONFIG.batch, fabric)
    for step in range(3):
        losses = model(*views_of(CONFIG, step, positions), CONFIG.seed, step, positions)
        fabric.backward(losses.loss)
        stepper.step()
        stepper.zero_grad()
        said.append(losses.loss.detach())
    return said, dict(module.state_dict())


def one_of_two_ranks(rank: int, folder: str) -> None:
    torch.save(three_steps(), f"{folder}/{rank}.pt")


def test_two_ranks_train_the_weights_of_one_process_with_twice_the_batch(tmp_path):
    run_as_torchrun(one_of_two_ranks, str(tmp_path))
    losses, expected = three_steps()
    assert {weights.dtype for weights in expected.values()} == {torch.float64, torch.int64}  # the latter counters
    for rank in range(2):
        found_losses, found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found_losses, losses)  # Fabric gives them out in fp32
    for name, before in simclr().named_parameters():
        assert (expected[name] - before).abs().max() > 1e-6, name


@pytest.mark.parametrize("architecture", ["efficientnet_lite0", "resnet18", "timm/test_resnet"])
def test_statistics_over_processes_leave_what_is_computed(architecture):
    encoder = make_encoder(architecture, seed=1).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = encoder.pooled(images)
        changed = synchronized(encoder).eval()
        torch.testing.assert_close(changed.pooled(images), before)
    layers = [layer for layer in changed.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert layers and all(isinstance(layer, nn.SyncBatchNorm) for layer in layers)
