"""The files of the compile cache: damaged, too many, exchanged by others, not to be written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nncompile.compiler import cache_files
from nncompile.compiler.cache_files import CacheWarning, CompileCache, Entry
from nncompile.compiler.cache_place import VARIABLE
from tests.cache_checks import files, fresh, is_hit, recipe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    yield tmp_path / "cache"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:20],
        lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
        lambda data: data[:70] + bytes([data[70] ^ 1]) + data[71:],
        lambda data: data + b"\0",
        lambda data: b"another program's file",
    ],
    ids=["empty", "shorter", "half", "header", "a bit", "a bit of JSON", "longer", "foreign"],
)
def test_a_damaged_entry_is_made_anew(cache: Path, damage: Any) -> None:
    assert not is_hit(recipe())
    right = fresh(recipe()).content("step")
    (file,) = files(cache)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.warns(CacheWarning, match=f"{file.name} is damaged: .* compiled again"):
        compiled = fresh(recipe())
        assert compiled.content("step") == right
    assert not compiled.report.is_cached
    assert file.read_bytes() == whole
    assert is_hit(recipe())


def test_an_entry_under_the_name_of_another_is_damaged(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path)
    cache.put("a" * 64, Entry(b"content", {"x": 1}))
    (tmp_path / f"{'a' * 64}.compiled").rename(tmp_path / f"{'b' * 64}.compiled")
    with pytest.warns(CacheWarning):
        assert CompileCache(tmp_path).get("b" * 64) is None


def test_the_oldest_used_are_removed(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path, limit=5000)
    for i, key in enumerate("abcd"):
        cache.put(key, Entry(bytes(1000), {}))
        os.utime(tmp_path / f"{key}.compiled", (i, i))
    CompileCache(tmp_path).get("a")  # which is now the one that was used last
    abandoned = tmp_path / "0123.writing"
    abandoned.write_bytes(bytes(100))
    os.utime(abandoned, (1, 1))
    own = tmp_path / "notes.txt"
    own.write_text("not ours")
    os.utime(own, (1, 1))
    cache.put("e", Entry(bytes(1000), {}))
    assert {p.name[0] for p in files(tmp_path)} == {"a", "c", "d", "e", "n"}
    cache.put("f", Entry(bytes(6000), {}))  # larger than all together
    assert cache.usage[0] == 4
    assert cache.usage[1] <= 5000


def test_a_directory_with_room_is_not_looked_through_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, look = [], CompileCache._files

    def counted(cache: CompileCache) -> Any:
        looks.append(cache)
        return look(cache)

    monkeypatch.setattr(CompileCache, "_files", counted)
    cache = CompileCache(tmp_path, limit=200_000)
    for i in range(100):
        cache.put(f"{i:02}", Entry(bytes(1000), {}))
    assert 3 < len(looks) < 12  # an eighth of what is free, each time
    for i in range(100, 400):
        cache.put(f"{i:03}", Entry(bytes(1000), {}))
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 200_000
    assert len(looks) < 150


def test_a_process_keeps_what_it_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_files, "MEMORY", 3000)
    cache = CompileCache(tmp_path)
    entry = Entry(bytes(1000), {})
    for key in "abc":
        cache.put(key, entry)
    assert cache.get("a") is entry
    for key in "de":
        cache.put(key, entry)
    cache.put("f", Entry(bytes(4000), {}))  # larger than all together
    assert [*cache._memory] == ["a", "d", "e"]
    found = cache.get("b")
    assert found == entry and found is not entry  # of its file


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
def test_nobody_else_writes_there(cache: Path) -> None:
    assert not is_hit(recipe())
    assert not stat.S_IMODE(cache.stat().st_mode) & 0o077


def test_a_directory_that_cannot_be_written(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text("a file")  # whoever runs this may write everywhere else
    with pytest.warns(CacheWarning, match=r"cannot be written \(.*\): NNCOMPILE_CACHE names"):
        assert not is_hit(recipe())
    assert not is_hit(recipe())
    assert cache.read_text() == "a file"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_is_read_only(cache: Path) -> None:
    assert not is_hit(recipe())
    cache.chmod(0o500)
    try:
        assert is_hit(recipe())
        with pytest.warns(CacheWarning, match="cannot be written"):
            assert not is_hit(recipe(width=7))
        assert len(files(cache)) == 1
    finally:
        cache.chmod(0o700)


_COMPILE = """
import sys
from tests.cache_checks import recipe
from nncompile.compiler.compile import compile_step
for width in range(3, 9):
    compiled = compile_step(recipe(width))
    sys.stdout.buffer.write(compiled.content("step"))
"""


def test_processes_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", _COMPILE], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [p.communicate()[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(files(cache)) == 6
    monkeypatch.setenv(VARIABLE, "off")
    alone = subprocess.run([sys.executable, "-c", _COMPILE], capture_output=True, check=True)
    assert outputs[0] == alone.stdout


def test_readers_and_writers_at_once(tmp_path: Path) -> None:
    """Files are exchanged under those who read them: each reads a whole one."""
    code = (
        "import sys; from pathlib import Path\n"
        "from nncompile.compiler.cache_files import CompileCache, Entry\n"
        "for i in range(300):\n"
        "    cache = CompileCache(Path(sys.argv[1]), limit=400_000)\n"
        "    key = f'{i % 7}' * 64\n"
        "    cache.put(key, Entry(key.encode() * 2000, {'key': key}))\n"
        "    entry = CompileCache(Path(sys.argv[1])).get(f'{(i + 3) % 7}' * 64)\n"
        "    assert entry is None or entry.content == entry.about['key'].encode() * 2000\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    assert [p.wait() for p in [subprocess.Popen(command) for _ in range(2)]] == [0, 0]
    assert not [p for p in files(tmp_path) if p.name.endswith(".writing")]
