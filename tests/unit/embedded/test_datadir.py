"""The data directory: private, and one owner at a time."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from services.embedded.datadir import DataDirectory, DataDirectoryError, InUse, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_directory_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "a" / "data") as directory:
        assert mode(directory.path) == 0o700


def test_an_empty_directory_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    with DataDirectory(tmp_path / "data") as directory:
        assert mode(directory.path) == 0o700


def test_a_directory_with_files_of_others_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataDirectoryError, match="not a data directory of Lockgate"):
        DataDirectory(tmp_path)
    assert mode(tmp_path) == 0o755
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_path_that_cannot_be_a_directory_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match="cannot be used"):
        DataDirectory(tmp_path / "file")


def test_a_second_owner_is_told_the_process_of_the_first(directory: DataDirectory) -> None:
    with pytest.raises(InUse, match=f"in use by process {os.getpid()}"):
        DataDirectory(directory.path)


def test_the_directory_is_free_again_after_close(tmp_path: Path) -> None:
    DataDirectory(tmp_path / "data").close()
    DataDirectory(tmp_path / "data").close()


def test_the_directory_is_free_again_after_its_owner_was_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from services.embedded.datadir import DataDirectory\n"
        "directory = DataDirectory(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    owner = subprocess.run([sys.executable, "-c", script, str(tmp_path / "data")], check=False)
    assert owner.returncode == -9
    DataDirectory(tmp_path / "data").close()


def test_a_generated_secret_is_private_and_stays_the_same(directory: DataDirectory) -> None:
    first = directory.remembered("secret", lambda: "one")
    assert directory.remembered("secret", lambda: "two") == first == "one"
    assert mode(directory.path / "secret") == 0o600


def test_a_private_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old and longer")
    (tmp_path / "file").chmod(0o644)
    write_private(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert mode(tmp_path / "file") == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
