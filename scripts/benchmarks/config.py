"""The options of every benchmark: light, so that `--help` answers before torch is imported."""

from dataclasses import dataclass
from pathlib import Path

from pretrain.command import Names
from pretrain.data.images import LaidOut


@dataclass(frozen=True)
class Benchmark:
    """What every benchmark can be told.

    Attributes:
        quick: Fewer rounds and images, for a rough answer within a minute.
        check: Exit with code 1 where a target is missed.
        record: Append the table and the command to this Markdown file.
    """

    quick: bool = False
    check: bool = False
    record: Path | None = None


@dataclass(frozen=True)
class Cache(Benchmark):
    """Measure how fast the cache is built and read beside the bare decoder, and how much memory that takes.

    Attributes:
        images: Number of 1024 px PNGs; building is also measured with four times as many, memory with ten times.
        rounds: Rounds in which all contestants take turns.
        size_px: Side of the cached squares.
    """

    images: int = 500
    rounds: int = 5
    size_px: int = 256


@dataclass(frozen=True)
class Contamination(Benchmark, LaidOut):
    """Measure what defective images among the good ones cost, with and without `--allow-contamination`.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is demo data.
        categories: Only these of them.
        shares: Percentages of the images to fit to that are defective.
        seeds: Draws of images.
        normals: Good images to fit to, at most; fewer where defective ones do not suffice for the highest share.
        method: As downstream/detect.py fit has it.
        size_px: Side of the square that images are stretched to.
    """

    data: Path = Path("data/demo")
    categories: Names = Names()
    shares: Names = Names("0,5,10,20")
    seeds: Names = Names("0")
    normals: int = 300
    method: str = "fused"
    size_px: int = 384


@dataclass(frozen=True)
class Merged(Benchmark, LaidOut):
    """Measure what fitting in parts costs: how well a coreset of coresets covers, and how many defects it finds.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is demo data.
        categories: Only these of them.
        parts: Numbers of parts, beside 1.
        seeds: How images are divided, and the method's.
        method: patchcore or fused.
        size_px: Side of the square that images are stretched to.
    """

    data: Path = Path("data/demo")
    categories: Names = Names()
    parts: Names = Names("4,16")
    seeds: Names = Names("0,1,2")
    method: str = "patchcore"
    size_px: int = 224


@dataclass(frozen=True)
class Demo(Benchmark):
    """Measure whether the demo's defects are found, the obvious half and the other.

    Attributes:
        data: Folder of the demo data; drawn if it is not there.
        categories: Categories of it.
    """

    data: Path = Path("data/demo-defects")
    categories: Names = Names("bottle,pill,wood")


@dataclass(frozen=True)
class Feedback(Benchmark):
    """Simulate an operator who corrects a model's verdicts, and measure what it learns on images not yet seen.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is demo data.
        categories: Only these of them.
        normals: Numbers of good images that a model is fitted to, before anybody corrects it.
        corrected: Numbers of good and of defective images, each, after which the model learns.
        wrong: Share of what the operator says that is wrong.
        orders: Random orders of the stream of images; each draws the images to fit to as well.
        minutes: Begin no further order after so many. Default is to finish.
        judged: Good and defective images, each, that are judged and never learned from, at most.
        size_px: Side of the square that images are stretched to.
        figure: File of the curves, PNG.
        cells: File of JSON lines to keep finished cells in; a run that was stopped goes on with them.
    """

    data: Path = Path("data/demo")
    categories: Names = Names()
    normals: Names = Names("16,all")
    corrected: Names = Names("5,10,20")
    wrong: float = 0.05
    orders: int = 10
    minutes: float | None = None
    judged: int = 25
    size_px: int = 224
    figure: Path | None = None
    cells: Path | None = None


@dataclass(frozen=True)
class Gpu(Benchmark):
    """Prove all of it on one GPU, in parts that each end by themselves, the most valuable first.

    Attributes:
        minutes: How long all parts together may take.
        parts: Only these of them; tests, training, pretraining, inference, baselines, views or service.
        data: Folder of categories in MVTec AD's layout, of which two at least have defects. Default is demo data.
        dry_run: Go through every part on the CPU with tiny sizes.
        in_process: Run the parts in this process; else each has one of its own, which may be stopped or die.
        pack: Write what a machine with a GPU but without a network lacks into this folder, and stop.
        limit_mb: At most so many MiB of it; of the images of --data as many as fit.
        for_python: Version of Python that the machine has, for --pack.
        out: Folder for results.json, results.md and log.txt, and nothing else.
        work: Folder for the runs of trainings and all else. Default is a temporary one.
    """

    minutes: float = 9.0
    parts: Names = Names()
    data: Path | None = None
    dry_run: bool = False
    in_process: bool = False
    pack: Path | None = None
    limit_mb: float = 56.0
    for_python: str = "3.12"
    out: Path = Path("runs/gpu")
    work: Path | None = None


@dataclass(frozen=True)
class Infer(Benchmark):
    """Measure how fast and how well an exported model answers, beside anomalib's.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is a generated product.
        categories: Only these of them; times are of the first.
        rounds: Rounds in which all contestants take turns; 0 for AUROCs alone.
        normals: Images to learn from, at most.
        size_px: Side of the square of our images.
        sizes: In place of all that, what an image of the first category takes at these sizes, such as 224,512,native:
            milliseconds and MiB of padim, patchcore and fused as they are fitted.
        peer_python: A Python that has anomalib and openvino. Default is one made beside the cache.
    """

    data: Path | None = None
    categories: Names = Names()
    size_px: int = 384
    sizes: Names = Names()
    rounds: int = 7
    normals: int = 300
    peer_python: Path | None = None


@dataclass(frozen=True)
class Line(Benchmark):
    """Measure how many frames of how many stations a line bears within a budget, beside the bare model.

    Attributes:
        stations: Numbers of stations.
        budget_ms: Milliseconds after which a part is a fault.
        rounds: Rounds in which the bare model, the line and the line beside a source that hangs take turns.
        seconds: Seconds of each load.
        minutes: Try no further load after so many.
        soak: So many parts more, at the highest rate that one station bore; 0 is none.
    """

    stations: Names = Names("1,2,4,8")
    budget_ms: float = 200.0
    rounds: int = 3
    seconds: float = 10.0
    minutes: float = 7.0
    soak: int = 0


@dataclass(frozen=True)
class Patches(Benchmark):
    """Measure how fast patch methods are fitted and run, and their memory, beside anomalib's.

    Attributes:
        rounds: Rounds in which all contestants take turns.
        normals: Images to learn from; memory is compared with ten times as many.
        coarse_px: The coarse contestant resizes its images to this side.
        patchcore_minutes: Stop anomalib's Patchcore where choosing its coreset takes longer.
        peer_python: A Python that has anomalib. Default is one made beside the cache.
    """

    rounds: int = 5
    normals: int = 200
    coarse_px: int = 256
    patchcore_minutes: float = 5.0
    peer_python: Path | None = None


@dataclass(frozen=True)
class Monitor(Benchmark, LaidOut):
    """Does the monitor of pretraining rank encoders as real defects do? Its figure beside real test images'.

    Attributes:
        data: Folder of categories in MVTec AD's layout.
        categories: Only these of them.
        encoders: Files, or what simclr.py --start takes; several recipes, good ones and bad ones.
        method: What inspects the test images, as downstream/detect.py fit has it.
        size_px: Side of the square to which the method's images are stretched.
        monitor_px: Side of the monitor's, which simclr.py calls size_px.
    """

    data: Path = Path("data/demo")
    categories: Names = Names()
    encoders: Names = Names("random,imagenet")
    method: str = "fused"
    size_px: int = 224
    monitor_px: int = 128


@dataclass(frozen=True)
class Pretrain(Benchmark):
    """Measure how fast SimCLR trains, beside lightly's tutorial and beside the bare training step.

    Attributes:
        rounds: Rounds in which all contestants take turns. Default is 5, with --quick 2.
        steps: Training steps per turn. Default is one for each core, at least 8, with --quick 2.
        batch: Images per step. Default is 256 on a GPU, 64 without, with --quick 32.
        size_px: Side of the views. Default is 224 on a GPU, 64 without.
        rows: Only contestants whose names begin so, such as "our default,2 stages,3 stages", and their targets.
        device: cpu, cuda, or auto for a GPU where there is one.
    """

    rounds: int | None = None
    steps: int | None = None
    rows: Names = Names()
    batch: int | None = None
    size_px: int | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Restore(Benchmark):
    """Measure SADNet and ours: seconds per megapixel, and PSNR after equal training time.

    Attributes:
        minutes: Minutes of training for each.
        encoder: Encoder file for ours that did not see bottle and wood. Default is a random one.
    """

    minutes: float = 1.5
    encoder: Path | None = None


@dataclass(frozen=True)
class Router(Benchmark, LaidOut):
    """Measure how often the router of serve.py finds an image's product, and refuses one of none of them.

    Attributes:
        data: Folder of categories in MVTec AD's layout, two at least. Default is demo data.
        categories: Only these of them.
        method: A method that compares patches, as downstream/detect.py fit has it.
        size_px: Side of the square that images are stretched to.
    """

    data: Path = Path("data/demo")
    categories: Names = Names()
    method: str = "fused"
    size_px: int = 384


@dataclass(frozen=True)
class Scale(Benchmark):
    """Measure what Ray costs and gives: images of a manifest, the driver's memory, search over shards.

    Attributes:
        images: Images of the manifest by which Ray's overhead is measured; several workers take a quarter of them.
        rounds: Rounds in which all contestants take turns.
        rows: Rows of the manifests over which the driver's memory is watched; they name images that are not there.
        vectors: Vectors to search among.
        shards: Shards that they are shared out to.
        out: Folder where the images are kept for another time.
    """

    images: int = 5000
    rounds: int = 3
    rows: Names = Names("10000,100000,1000000")
    vectors: int = 1_000_000
    shards: int = 4
    out: Path = Path("runs/benchmark_scale")


@dataclass(frozen=True)
class Search(Benchmark):
    """Measure search beside faiss's exact index and scikit-learn, and extraction beside the bare encoder.

    Attributes:
        encoder: Encoder file, or random. Default is runs/simclr/encoder.safetensors where it may be used, else random.
        data: Folder of images; 1 million vectors take 1276 and more for queries. Default is demo data.
        sizes: Numbers of vectors to search among.
        rounds: Rounds in which all contestants take turns.
        images: Number of images to extract beside the bare encoder.
        out: Folder where the vectors are kept for another time.
    """

    encoder: Path | None = None
    data: Path = Path("data/demo")
    sizes: Names = Names("10000,100000,1000000")
    rounds: int = 3
    images: int = 256
    out: Path = Path("runs/benchmark_search")


@dataclass(frozen=True)
class Serve(Benchmark):
    """Measure the inspection service beside its bare model.

    Attributes:
        rounds: Rounds in which all contestants take turns.
        requests: Requests per round.
        memory_requests: Requests over which memory is watched.
        batch: Images per forward pass, at most: the service's --batch-size.
        workers: Processes of the service, its --workers; with one per core none waits for another's thread.
        device: cpu, cuda, or auto for a GPU where there is one.
    """

    rounds: int = 5
    requests: int = 640
    memory_requests: int = 10_000
    batch: int = 16
    workers: int = 1
    device: str = "auto"


@dataclass(frozen=True)
class Vgg(Benchmark):
    """Measure the training of VGG16-CAM with and without keeping the output of its frozen layers.

    Attributes:
        rounds: Epochs of each, which take turns.
        images: Images per epoch, about a sixth of them held out.
    """

    rounds: int = 5
    images: int = 80
