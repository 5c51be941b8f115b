"""The types of what `import heldout` gives, for editors and type checkers: a module that is one file cannot say that it
has any (PEP 561)."""

from pathlib import Path

from baselines.autoencoders.method import AutoEncoder as AutoEncoder
from baselines.autoencoders.method import ConvolutionalAutoEncoder as ConvolutionalAutoEncoder
from baselines.autoencoders.method import VariationalAutoEncoder as VariationalAutoEncoder
from baselines.cam.method import Cam as Cam
from baselines.cam.method import VggCam as VggCam
from baselines.contract.method import Method
from baselines.trivial import FrameColor as FrameColor
from baselines.trivial import MeanImage as MeanImage
from downstream.inspection.config import FitSettings as FitSettings
from downstream.inspection.inspector import Inspector as Inspector
from downstream.methods.ensemble import Ensemble as Ensemble
from downstream.methods.fine_tuned import FineTuned as FineTuned
from downstream.methods.fused import Fused as Fused
from downstream.methods.heads import KnnHead as KnnHead
from downstream.methods.heads import LogisticHead as LogisticHead
from downstream.methods.padim import PaDiM as PaDiM
from downstream.methods.patchcore import PatchCore as PatchCore
from downstream.methods.residual import Residual as Residual
from embeddings.index import Index as Index
from pretrain.command import UserError as UserError
from pretrain.encoder import Encoder as Encoder
from pretrain.encoder import load_encoder as load_encoder
from pretrain.encoder import make_encoder as make_encoder

__version__: str
COMMANDS: dict[str, str]

def load(path: Path | str, device: str = "auto") -> Inspector | Method: ...
def main() -> int: ...
