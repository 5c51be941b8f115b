"""The options of every command in embeddings/: light, so that `--help` answers before torch is imported."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pretrain.command import Names
from pretrain.data.images import LaidOut
from pretrain.tasks import Spread


@dataclass(frozen=True)
class Extract(LaidOut, Spread):
    """Turn a folder of images into vectors on disk; memory does not grow with the number of images.

    Attributes:
        data: Folder of images, or a manifest of them (of pretrain/manifest.py). Default is data/mvtec where it exists,
            else demo data.
        encoder: File, architecture (its published weights), imagenet, or random. Default is runs/simclr,
            else imagenet.
        categories: Only these categories.
        out: Folder for the vectors. Default is runs/vectors/ and a name made from the data and the encoder.
        form: One vector per image (pooled), or one per patch (patches).
        levels: Feature levels of the encoder. Default is level4 for pooled, level2,level3 for patches.
        size_px: Side of the square that images are resized to. Default is the encoder's input size.
        grid: At most this many patches per side. Default is the resolution of level2, one every 8 pixels.
        dimensions: Keep this many dimensions of a patch, drawn at random. Default is all.
        batch: Images encoded at once.
        precision: bf16-mixed or 32-true. Default is bf16 where it is faster here and gives the same vectors.
        seed: Draws the dimensions, and the weights of a random encoder.
        device: cpu, cuda, or auto for a GPU where there is one.
        workers: Processes that decode images. Default is one per core.
        part_images: Of a manifest, images of a shard, on average.
    """

    data: Path | None = None
    encoder: Path | None = None
    categories: Names = Names()
    out: Path | None = None
    form: Literal["pooled", "patches"] = "pooled"
    levels: Names = Names()
    size_px: int | None = None
    grid: int | None = None
    dimensions: int | None = None
    batch: int = 32
    precision: Literal["bf16-mixed", "32-true"] | None = None
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    part_images: int = 1024


@dataclass(frozen=True, kw_only=True)
class Sharded(Spread):
    """Where an index lies.

    Attributes:
        address: Hold the shards in Ray's actors: local starts them on this machine, auto finds the Ray that runs here,
            or that RAY_ADDRESS names, and HOST:PORT or ray://HOST:PORT is one elsewhere. Default is this process alone.
        patience_s: On Ray, seconds to wait for a shard. What is found without it is called partial.
        shards: Shards to build the index of. Default is 1, or those that it has.
        replicas: On Ray, actors that hold each shard: while one of them lives, nothing is missing.
    """

    patience_s: int = 600
    shards: int | None = None
    replicas: int = 1


@dataclass(frozen=True)
class Build(Sharded):
    """Build the index of extracted vectors, or bring it up to date.

    Attributes:
        vectors: Folder of the vectors, from embeddings/extract.py; the index goes into its subfolder index.
        rebuild: Build anew, with other options, even where there is an index.
        metric: Cosine distance, or Euclidean (l2).
        kind: Type of faiss index; flat is exact. Default is chosen from the number of vectors, the recall and the
            free memory.
        recall: Share of the ten nearest neighbors that a search should find.
        nprobe: Lists of ivf and ivfpq that a search reads. Default is the fewest that reach the recall.
        ef_search: Candidates that a search of hnsw keeps. Default is the fewest that reach the recall.
        nlist: Lists of ivf and ivfpq. Default is 2 sqrt(n).
        m: Links of a vector in the graph of hnsw. Default is 32.
        code_size: Bytes of a vector in ivfpq. Default is one for 8 dimensions.
        seed: Draws the vectors that lists and codes are learned from.
    """

    vectors: Path
    rebuild: bool = False
    metric: Literal["cosine", "l2"] = "cosine"
    kind: Literal["auto", "flat", "ivf", "hnsw", "ivfpq"] = "auto"
    recall: float = 0.95
    nprobe: int | None = None
    ef_search: int | None = None
    nlist: int | None = None
    m: int | None = None
    code_size: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Search(LaidOut, Sharded):
    """Find the images that are most similar to an image, to several, or to each of a folder.

    Attributes:
        queries: Images, or folders of images.
        vectors: Search among these vectors, a folder from embeddings/extract.py. Default is that of --data and
            --encoder.
        data: Search among the images of this folder. Default is data/mvtec where it exists, else demo data.
        encoder: File, architecture (its published weights), imagenet, or random. Default is runs/simclr,
            else imagenet.
        k: Number of neighbors.
        category: Only among these categories.
        split: Only among train, or test.
        defect: Only among these types of defect; good is one of them.
        differences: Compare how images differ from the mean of the category's good training images, which finds
            similar defects where the default finds similar products; needs one --category.
        update: Extract images that are new or have changed, and forget those that are gone, before searching.
        sheet: Write queries and neighbors side by side to this HTML file.
        json: Write the neighbors to this JSON file too.
        batch: Queries encoded at once.
        device: cpu, cuda, or auto for a GPU where there is one.
    """

    queries: tuple[Path, ...] = field(default=(), metadata={"positional": True})
    vectors: Path | None = None
    data: Path | None = None
    encoder: Path | None = None
    k: int = 10
    category: Names = Names()
    split: Names = Names()
    defect: Names = Names()
    differences: bool = False
    update: bool = False
    sheet: Path = Path("runs/search/neighbors.html")
    json: Path | None = None
    batch: int = 32
    device: str = "auto"


@dataclass(frozen=True)
class Duplicates(LaidOut):
    """Find duplicates and near duplicates of images, within and across splits.

    Attributes:
        vectors: Vectors to compare, from embeddings/extract.py. Default is those of --data and --encoder.
        data: Folder of images. Default is data/mvtec where it exists, else demo data.
        encoder: File, architecture (its published weights), imagenet, or random. Default is runs/simclr,
            else imagenet.
        category: Only these categories.
        closer_than: Two images are near duplicates if their distance is below this fraction of the median distance
            between an image and its nearest neighbor in the category.
        show: Number of pairs to print, the nearest first.
        update: Extract images that are new or have changed, and forget those that are gone, before comparing.
        sheet: Write the pairs to this HTML file.
        json: Write all pairs to this JSON file.
        strict: Exit with code 2 if an image in train has a near duplicate in test.
        device: cpu, cuda, or auto for a GPU where there is one.
    """

    vectors: Path | None = None
    data: Path | None = None
    encoder: Path | None = None
    category: Names = Names()
    closer_than: float = 0.1
    show: int = 20
    update: bool = False
    sheet: Path | None = None
    json: Path | None = None
    strict: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class Outliers(LaidOut):
    """Find the images of each category that lie farthest from their neighbors.

    Attributes:
        vectors: Vectors to compare, from embeddings/extract.py. Default is those of --data and --encoder.
        data: Folder of images. Default is data/mvtec where it exists, else demo data.
        encoder: File, architecture (its published weights), imagenet, or random. Default is runs/simclr,
            else imagenet.
        category: Only these categories.
        split: Only images of train, or test.
        show: Number of outliers of each category to print and draw.
        num_neighbors: Average the distance to this many nearest images; with fewer, copies of an odd image hide it.
        update: Extract images that are new or have changed, and forget those that are gone, before comparing.
        sheet: Draw the outliers as a contact sheet into this PNG file.
        json: Write the ratio of every image to this JSON file.
        device: cpu, cuda, or auto for a GPU where there is one.
    """

    vectors: Path | None = None
    data: Path | None = None
    encoder: Path | None = None
    category: Names = Names()
    split: Names = Names()
    show: int = 8
    num_neighbors: int = 5
    update: bool = False
    sheet: Path | None = None
    json: Path | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Knn(LaidOut):
    """Measure what an encoder's nearest neighbors know of the labels, beside a random encoder.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        encoder: Encoder file. Default is runs/simclr/encoder.safetensors where it may be used, else only a random one.
        categories: Only these categories.
        size_px: Side of the square that images are resized to. Default is the encoder's input size.
        seed: Draws the weights of the random encoder.
        json: Write the figures to this JSON file.
        device: cpu, cuda, or auto for a GPU where there is one.
    """

    data: Path | None = None
    encoder: Path | None = None
    categories: Names = Names()
    size_px: int | None = None
    seed: int = 0
    json: Path | None = None
    device: str = "auto"


@dataclass(frozen=True)
class ImageMap(LaidOut):
    """Draw a set of images as a map on which similar ones lie together: a page to explore, and a PNG.

    Attributes:
        vectors: Vectors of the images, from embeddings/extract.py. Default is those of --data and --encoder.
        data: Folder of images. Default is data/mvtec where it exists, else demo data.
        encoder: File, architecture (its published weights), imagenet, or random. Default is runs/simclr,
            else imagenet.
        category: Only these categories.
        split: Only images of train, or test.
        method: How vectors are projected to two dimensions.
        color: What the colors stand for; the page can change it. Default is the type of defect where there is one
            category, else the category.
        max_images: Draw this many at random where there are more.
        seed: Draws the images, and starts t-SNE.
        update: Extract images that are new or have changed, and forget those that are gone, before drawing.
        page: The HTML page.
        png: The PNG.
        device: cpu, cuda, or auto for a GPU where there is one.
    """

    vectors: Path | None = None
    data: Path | None = None
    encoder: Path | None = None
    category: Names = Names()
    split: Names = Names()
    method: Literal["tsne", "pca"] = "tsne"
    color: Literal["category", "split", "defect"] | None = None
    max_images: int = 3000
    seed: int = 0
    update: bool = False
    page: Path = Path("runs/map/map.html")
    png: Path = Path("runs/map/map.png")
    device: str = "auto"
