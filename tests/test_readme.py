"""Every command and every program that the README shows runs, in order, in one folder."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.drawn import write_pairs
from unet_edge.cli import COMMANDS, main

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMAND_LINES = re.findall(r"^\$ unet-edge (.+)$", TEXT, flags=re.MULTILINE)
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    write_pairs(folder / "made", count=12, size=(96, 128))
    (folder / "made" / "images").rename(folder / "photos")
    (folder / "made" / "masks").rename(folder / "masks")
    (folder / "new_photos").mkdir()
    for name in ("photo.png", "other photo.png"):
        source = sorted((folder / "photos").iterdir())[len(name) % 5]
        (folder / "new_photos" / name).write_bytes(source.read_bytes())
    return folder


def test_the_readme_shows_every_command():
    elsewhere = {"demo", "mac-report"}  # `make demo` is `unet-edge demo`; the report needs a Mac
    shown = {line.split()[0] for line in COMMAND_LINES} | elsewhere
    assert shown == set(COMMANDS)
    assert len(PROGRAMS) == 2


def test_every_command_and_program_of_the_readme_runs(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    for line in COMMAND_LINES:
        # Through our own pattern expansion where a shell would expand it.
        result = CliRunner().invoke(main, shlex.split(line), prog_name="unet-edge")
        assert result.exit_code == 0, f"unet-edge {line}\n{result.output}"
    for program in PROGRAMS:
        exec(compile(program, str(README), "exec"), {})
    masks = {path.name for path in (workplace / "new_masks").iterdir()}
    assert {"photo_OUT.png", "photo_OVERLAY.png", "other photo_OUT.png"} <= masks
    assert (workplace / "photo_mask.png").exists()


def test_every_option_in_the_readme_exists():
    known = {option for name in COMMANDS for option in _options(main.get_command(None, name))}
    ours = re.sub(r"`(torchrun|tensorboard) [^`]*`", "", TEXT)  # other programs have options of their own
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", ours)) <= known | {"--help"}


def test_files_that_the_readme_links_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (README.parent / target).exists(), target


def _options(command) -> set[str]:
    options = {text for parameter in command.params for text in (*parameter.opts, *parameter.secondary_opts)}
    for sub in getattr(command, "commands", {}).values():
        options |= _options(sub)
    return options
