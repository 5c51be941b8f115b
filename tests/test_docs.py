"""What README.md and docs/ tell people to type exists: every command is parsed by its own options, every flag named in
a sentence is one of some command, and generated parts are as the commands that write them would write them."""

import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import heldout
from pretrain import command
from pretrain.config import Convert
from pretrain.data.images import LaidOut

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
# Of every command (jsonargparse's own), and of programs that are not ours.
OTHER_FLAGS = {
    "--help",
    "--config",
    "--print_config",
    "--strict",
    "--nproc-per-node",
    "--shell",
    "--index-url",
    "--check",
}
WITHOUT_OPTIONS = ("doctor",)
PACKAGES = ("pretrain", "embeddings", "baselines", "downstream")


def file_of(module: str) -> Path:
    return (REPOSITORY / module.replace(".", "/")).with_suffix(".py")


def commands_in(text: str) -> list[list[str]]:
    """The lines of code blocks, fenced or indented, that run a file of the project, as words from the file on."""
    found, fenced = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = line not in ("```", "```python") and not fenced
        elif fenced or line.startswith("    "):
            try:
                words = shlex.split(line, comments=True)
            except ValueError:  # prose in an indented list, with an apostrophe
                continue
            starts = [i for i, word in enumerate(words) if re.fullmatch(r"heldout|\w+(/\w+)+\.py", word)]
            if starts and (words[0] == "heldout" or {"python", "torchrun"} & {*words[: starts[0]]}):
                found.append(words[starts[0] :])
    return found


COMMANDS = [(page, words) for page in PAGES for words in commands_in(page.read_text())]


class Captured(Exception):
    """A command's options, before anything of it ran."""


@pytest.fixture
def configs_of(monkeypatch):
    """The dataclasses that a file reads its command line into, by subcommand; None for a file with one command."""

    def capture(commands):
        raise Captured(commands)

    def configs(path: Path) -> dict[str | None, type]:
        monkeypatch.setattr(sys, "path", [*sys.path])  # a file that is typed puts its checkout first
        monkeypatch.setattr(sys, "argv", [str(path)])
        for one, several in (("start", "start_commands"), ("run_command", "run_commands")):
            monkeypatch.setattr(command, one, lambda main, config, *_: capture({None: config}))
            monkeypatch.setattr(command, several, lambda pairs: capture({name: c for name, (_, c) in pairs.items()}))
        with pytest.raises(Captured) as captured:
            runpy.run_path(str(path), run_name="__main__")
        return captured.value.args[0]

    return configs


def parsed(configs: dict[str | None, type], arguments: list[str]) -> None:
    """Read arguments as the command would. Raises SystemExit where it would refuse them."""
    config = configs[None] if None in configs else configs[arguments.pop(0)]
    command.read_config(config, arguments)


def test_the_pages_show_commands():
    assert len(PAGES) > 12 and len(COMMANDS) > 50
    assert commands_in("a\n\n    A=1 python a/b.py c --d  # e\n\n```bash\ntorchrun -n 2 a/b.py\n```\nheldout x\n") == [
        ["a/b.py", "c", "--d"], ["a/b.py"],
    ]  # fmt: skip


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{p.name}: {shlex.join(w)}" for p, w in COMMANDS])
def test_a_command_is_as_its_options_are(page, words, configs_of, capsys):
    file, *arguments = words
    path = file_of(heldout.COMMANDS[arguments.pop(0)]) if file == "heldout" else REPOSITORY / file
    if arguments == ["--help"] or path.stem in WITHOUT_OPTIONS:
        assert path.is_file()
        return
    if "--config" in arguments:  # a file of the reader's own; a page that shows one has a test for it
        place = arguments.index("--config")
        del arguments[place : place + 2]
    try:
        parsed(configs_of(path), arguments)
    except SystemExit:
        pytest.fail(f"{page.name}: {shlex.join(words)}\n{capsys.readouterr().err}")


def test_every_command_that_reads_a_folder_of_images_is_told_its_layout_alike(configs_of):
    paths = [file_of(module) for module in heldout.COMMANDS.values()]
    configs = [config for path in paths if path.stem not in WITHOUT_OPTIONS for config in configs_of(path).values()]
    without = {config for config in configs if "data" in {f.name for f in fields(config)}} - {Convert}
    assert len(without) > 20 and {config for config in without if not issubclass(config, LaidOut)} == set()


def test_a_flag_that_is_none_fails(configs_of):
    with pytest.raises(SystemExit):
        parsed(configs_of(file_of("pretrain.demo")), ["--no-such-flag", "1"])


def test_flags_in_sentences_exist(configs_of):
    known = set(OTHER_FLAGS)
    for path in map(file_of, heldout.COMMANDS.values()):
        for config in {} if path.stem in WITHOUT_OPTIONS else configs_of(path).values():
            known |= {f"--{prefix}{f.name.replace('_', '-')}" for f in fields(config) for prefix in ("", "no-")}
    for page in PAGES:
        sentences = "\n".join(re.findall(r"`[^`\n]*`", page.read_text()))
        assert {*re.findall(r"(?<![\w-])--[a-z][\w-]+", sentences)} - known == set(), page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_in_sentences_exist(page):
    paths = re.findall(
        r"`((?:pretrain|embeddings|baselines|downstream|scripts|tests|docs)/[\w./-]+)`", page.read_text()
    )
    links = [link for link in re.findall(r"\]\(([\w./-]+)\)", page.read_text()) if "://" not in link]
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_walk_quotes_the_code_as_it_is():
    sources = [REPOSITORY / "pretrain" / name for name in ("simclr.py", "loss.py", "views.py")]
    code = {line for path in sources for line in path.read_text().splitlines()}
    quoted = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/simclr.md").read_text(), re.DOTALL)
    assert len(quoted) > 2
    assert [line for block in quoted for line in block.splitlines() if line not in code] == []


# What the pages' Python begins with, and what it takes from its reader.
GIVEN = """
import heldout
from pathlib import Path
images: list[Path] = []
good_images: list[Path] = []
test_images: list[Path] = []
"""


def type_errors(code: str, folder: Path) -> list[str]:
    """What the type checker says of code that uses heldout."""
    (folder / "page.py").write_text(code)
    words = shlex.split(
        "pyrefly check --preset default --summary none --progress-bar no --output-format min-text page.py"
    )
    places = ["--search-path", REPOSITORY, "--python-interpreter-path", sys.executable]
    done = subprocess.run([*words, *places], cwd=folder, capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if line.startswith("ERROR")]


def test_the_python_of_the_pages_is_typed_as_heldout_is(tmp_path):
    pages = [REPOSITORY / "README.md", REPOSITORY / "docs" / "python.md"]
    blocks = [re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL) for page in pages]
    assert [*map(len, blocks)] == [1, 5]
    assert type_errors(GIVEN + "\n".join(sum(blocks, [])), tmp_path) == []


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("heldout.PaDim()", "missing-attribute"),
        ("heldout.PatchCore(dimension=3)", "unexpected-keyword"),
        ("heldout.Inspector.load('a').predict('b.png').is_bad", "missing-attribute"),
        ("heldout.Inspector.load('a').predict(['b.png']).is_defective", "missing-attribute"),
        ("heldout.load(3)", "bad-argument-type"),
    ],
)
def test_what_is_wrong_is_seen_by_a_type_checker(line, error, tmp_path):
    (said,) = type_errors(f"{GIVEN}{line}\n", tmp_path)
    assert f"[{error}]" in said


def test_the_lines_for_fiftyone_are_python():
    """The package is too heavy to run them."""
    blocks = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "docs/detection.md").read_text(), re.M | re.DOTALL)
    (lines,) = (block for block in blocks if "import fiftyone" in block)
    compile(lines, "detection.md", "exec")


def test_the_comparison_names_lacks_first_and_none_that_was_filled():
    text = (REPOSITORY / "docs/comparison.md").read_text()
    assert f"heldout is {heldout.__version__}" in text
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [heading for heading in headings if "heldout has not" in heading] == headings[:3]
    packages = {"NNCF": "nncf", "Comet": "comet_ml", "Weights & Biases": "wandb", "DICOM": "pydicom"}
    assert [name for name in packages if name not in text] == []
    paths = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    imports = "\n".join(re.findall(r"^ *(?:import|from) .*", "\n".join(map(Path.read_text, paths)), re.MULTILINE))
    assert [name for name, package in packages.items() if re.search(rf"\b{package}\b", imports)] == []


def test_the_hooks_run_the_ruff_of_the_tests():
    wanted = re.search(r"^ +(ruff.+)$", (REPOSITORY / "setup.cfg").read_text(), re.MULTILINE)[1]
    hooks = re.findall(r'\["(ruff.*)"\]', (REPOSITORY / ".pre-commit-config.yaml").read_text())
    assert hooks == [wanted, wanted]


def test_the_table_at_a_glance_is_what_its_command_writes():
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts/glance.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
