"""The sets of real images that scripts/fetch.py knows: who publishes them where, and under which license."""

from dataclasses import dataclass
from pathlib import PurePosixPath

SHARES = "https://www.mydrive.ch/shares"
NOT_COMMERCIAL = "CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/): no commercial use"


@dataclass(frozen=True)
class Published:
    """A set as its publisher offers it. `categories` have the share of the archive that each takes; `beside` is what
    else is unpacked; a size of 0 is not known beforehand."""

    title: str
    publisher: str
    license: str
    page: str
    url: str
    sha256: str
    categories: dict[str, int]
    beside: tuple[str, ...]
    size_bytes: int = 0

    @property
    def archive(self) -> str:
        """The name of its file."""
        return PurePosixPath(self.url).name


# Addresses age: --url and --sha256 say others.
SETS = {
    "mvtec": Published(
        "MVTec AD", "MVTec Software GmbH", NOT_COMMERCIAL, "https://www.mvtec.com/company/research/datasets/mvtec-ad",
        f"{SHARES}/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/mvtec_anomaly_detection.tar.xz",
        "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
        # In MiB. PNG hardly shrinks under xz, so packed or unpacked is the same to a few percent.
        dict(bottle=148, cable=481, capsule=385, carpet=705, grid=153, hazelnut=588, leather=500, metal_nut=157,
             pill=262, screw=186, tile=335, toothbrush=104, transistor=384, wood=474, zipper=152),
        ("license.txt", "readme.txt"), 5_264_982_680,
    ),
    "mvtec2": Published(
        "MVTec AD 2", "MVTec Software GmbH", NOT_COMMERCIAL,
        "https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
        f"{SHARES}/150997/701c90d3aea6588f404936e32a674602/download/466712769-1743429042/mvtec_ad_2.tar.gz",
        "c0ded99ef32bfc8e352d52beb44515e5b292b8598cb963aadfa91ca0763505e4",
        dict.fromkeys(["can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"], 1),
        ("license.txt", "readme.txt"),
    ),
    "visa": Published(
        "VisA", "Amazon", "CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)",
        "https://github.com/amazon-science/spot-diff",
        "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
        "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        dict.fromkeys(["candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2",
                       "pcb3", "pcb4", "pipe_fryum"], 1),
        ("LICENSE-DATASET", "split_csv"),
    ),
    "btad": Published(
        "BTAD", "the University of Udine", NOT_COMMERCIAL, "https://github.com/pankajmishra000/VT-ADL",
        "https://avires.dimi.uniud.it/papers/btad/btad.zip",
        "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
        {"01": 1, "02": 1, "03": 1}, (),
    ),
}  # fmt: skip
