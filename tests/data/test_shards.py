"""The token dataset on disk: what is written is read back, and damage is named."""

import hashlib
import json
import os

import numpy as np
import pytest

from dtrain import files
from dtrain.data import TokenDataset, write_shards
from dtrain.data.tool import main
from dtrain.errors import ArgumentError, DataError, IndexRangeError

TEXT = [b"the first document. ", "zweites Dokument: \u00fc. ".encode(), b"", b"a third, rather longer, one. " * 7]
ALL = b"".join(TEXT)


@pytest.fixture
def corpus(tmp_path):
    write_shards(TEXT, tmp_path / "corpus", shard_tokens=50)
    return tmp_path / "corpus"


@pytest.mark.parametrize("shard_tokens", [1, 7, 50, len(ALL) - 1, len(ALL), len(ALL) + 1, 10_000])
def test_round_trip(tmp_path, shard_tokens):
    index = write_shards(iter(TEXT), tmp_path / "c", shard_tokens)
    data = TokenDataset(tmp_path / "c")
    assert data.read(0, len(data)).tobytes() == ALL
    assert [s["tokens"] for s in index["shards"][:-1]] == [shard_tokens] * (len(index["shards"]) - 1)
    assert index["sha256"] == hashlib.sha256(ALL).hexdigest() == data.sha256
    assert data.document_ends.tolist() == np.cumsum([len(t) for t in TEXT]).tolist()


def test_reads_cross_shards(corpus):
    data = TokenDataset(corpus)
    for start, count in [(0, 0), (49, 2), (10, 150), (len(data) - 1, 1), (len(data), 0)]:
        assert data.read(start, count).tobytes() == ALL[start: start + count]
    starts = np.array([0, 45, 99, 149])
    assert data.windows(starts, 21).tolist() == [list(ALL[s: s + 21]) for s in starts]
    assert data[3:60].tobytes() == ALL[3:60] and data[-1] == ALL[-1]
    with pytest.raises(IndexRangeError, match=r"\[240, 251\)"):
        data.read(240, 11)
    with pytest.raises(IndexRangeError):
        data.windows([len(data) - 3], 4)


def test_tokenizer_separator_and_width(tmp_path):
    words = ["a b c", "b d"]
    numbers = {"a": 0, "b": 300, "c": 65535, "d": 4}
    write_shards(words, tmp_path / "c", dtype="uint16", tokenizer=lambda d: [numbers[w] for w in d.split()], separator=7)
    data = TokenDataset(tmp_path / "c")
    assert data.read(0, len(data)).tolist() == [0, 300, 65535, 7, 300, 4, 7]
    with pytest.raises(DataError, match="document 1 holds token 256, but uint8 holds 0 to 255"):
        write_shards([[1], [2, 256]], tmp_path / "d")
    with pytest.raises(DataError, match="token -1"):
        write_shards([np.array([-1])], tmp_path / "d")
    with pytest.raises(DataError, match="float64"):
        write_shards([[0.5]], tmp_path / "d")
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("documents", [[], [b""], [b"", ""]])
def test_empty_corpus_leaves_nothing(tmp_path, documents):
    with pytest.raises(DataError, match="empty"):
        write_shards(documents, tmp_path / "sub" / "c")
    assert os.listdir(tmp_path) == []


def test_a_failing_source_leaves_nothing(tmp_path):
    def source():
        yield b"x" * 100
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(source(), tmp_path / "c", shard_tokens=10)
    assert os.listdir(tmp_path) == []


def test_occupied_directory(corpus, tmp_path):
    with pytest.raises(DataError, match="--overwrite"):
        write_shards([b"new"], corpus)
    assert TokenDataset(corpus)[:20].tobytes() == TEXT[0]
    write_shards([b"new"], corpus, overwrite=True)
    assert TokenDataset(corpus)[:].tobytes() == b"new" and os.listdir(tmp_path) == ["corpus"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="not a token dataset"):
        write_shards([b"new"], tmp_path / "home", overwrite=True)
    assert os.listdir(tmp_path / "home") == ["thesis.txt"]


def test_overwriting_without_an_atomic_exchange(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "exchange", lambda a, b: False)
    write_shards([b"new"], corpus, overwrite=True)
    assert TokenDataset(corpus)[:].tobytes() == b"new" and os.listdir(tmp_path) == ["corpus"]


def test_folders_of_dead_writers_are_swept(corpus, tmp_path):
    import socket

    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    for pid in (dead, 1):
        (tmp_path / f".d.tmp-{socket.gethostname()}-{pid}").mkdir()
    write_shards([b"x"], tmp_path / "d")
    assert sorted(os.listdir(tmp_path)) == [f".d.tmp-{socket.gethostname()}-1", "corpus", "d"]


def damage(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def flip(data):
    data[-3] ^= 0x10


@pytest.mark.parametrize("name, change, message", [
    ("shard-00001.bin", flip, "shard-00001.bin is damaged"),
    ("shard-00001.bin", lambda d: d.pop(), "shard-00001.bin is truncated: it has 49 bytes, the index says 50"),
    ("shard-00004.bin", lambda d: d.append(0), "shard-00004.bin is longer"),
    ("index.json", flip, "index.json is damaged"),
    ("documents.bin", flip, "documents.bin is damaged"),
])
def test_damage_is_named(corpus, name, change, message):
    damage(corpus / name, change)
    with pytest.raises(DataError, match=message):
        data = TokenDataset(corpus)
        data.document_ends
        data[:]


def test_every_flipped_bit_is_noticed(tmp_path):
    write_shards([b"0123456789", b"abc"], tmp_path, shard_tokens=8)
    for path in tmp_path.iterdir():
        whole = path.read_bytes()
        for bit in range(8 * len(whole)):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            with pytest.raises(DataError):
                data = TokenDataset(tmp_path)
                data.document_ends
                data.verify()
        path.write_bytes(whole)
    TokenDataset(tmp_path).verify()


def test_checksums_can_be_left_out(corpus):
    damage(corpus / "shard-00001.bin", flip)
    data = TokenDataset(corpus, verify="size")
    data[:]
    with pytest.raises(DataError, match="shard-00001.bin is damaged"):
        data.verify()
    with pytest.raises(ArgumentError, match="'crc' or 'size'"):
        TokenDataset(corpus, verify="no")


def test_missing_things(corpus, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        TokenDataset(tmp_path / "nowhere")
    (corpus / "shard-00002.bin").unlink()
    with pytest.raises(DataError, match="shard-00002.bin is missing"):
        TokenDataset(corpus)
    (corpus / "index.json").unlink()
    with pytest.raises(DataError, match="index.json is missing"):
        TokenDataset(corpus)


def with_shard_name(corpus, name):
    index = files.unseal((corpus / "index.json").read_bytes(), "")
    index["shards"][0]["file"] = name
    (corpus / "index.json").write_bytes(files.seal(index))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "", ".", "a//b", "a\\b", "x\0y", 5, None])
def test_unsafe_names_are_refused(corpus, name):
    (corpus.parent / "secret").write_bytes(ALL[:50])
    with_shard_name(corpus, name)
    with pytest.raises(DataError, match="unsafe file name"):
        TokenDataset(corpus)


def test_links_and_fifos_are_refused(corpus):
    secret = corpus.parent / "secret"
    secret.write_bytes(ALL[:50])
    (corpus / "soft").symlink_to(secret)
    os.link(secret, corpus / "hard")
    (corpus / "way").symlink_to(corpus.parent)
    os.mkfifo(corpus / "fifo")
    for name, reason in [("soft", "symbolic link"), ("hard", "2 hard links"), ("way/secret", "symbolic link"), ("fifo", "not a regular")]:
        with_shard_name(corpus, name)
        with pytest.raises(DataError, match=reason):
            TokenDataset(corpus)


@pytest.mark.parametrize("change", [
    {"format": "something"}, {"version": 2}, {"dtype": "float32"}, {"tokens": 3}, {"shards": []}, {"shards": None},
    {"sha256": None}, {"boundaries": {"file": "documents.bin", "documents": 3, "bytes": 23, "crc32c": "0"}},
])
def test_an_index_that_contradicts_itself(corpus, change):
    index = files.unseal((corpus / "index.json").read_bytes(), "")
    (corpus / "index.json").write_bytes(files.seal({**index, **change}))
    with pytest.raises(DataError, match="contradicts itself|not the index|format version 2"):
        TokenDataset(corpus)


def test_sealed_json_refuses_deep_and_broken_text():
    text = b"[" * 100_000
    with pytest.raises(DataError, match="not readable"):
        files.unseal(b'{"crc32c":"%08x","body":' % files.crc32c(text) + text + b"}\n", "x")
    assert json.loads(files.seal({"a": [1, None]}))["body"] == {"a": [1, None]}


def test_the_tool(tmp_path, capsys):
    (tmp_path / "text" / "inner").mkdir(parents=True)
    for name, text in {"b.txt": "bb", "a.txt": "aaa", "inner/c.txt": "c", "d.bin": "no", ".hidden.txt": "no"}.items():
        (tmp_path / "text" / name).write_text(text)
    out = str(tmp_path / "out")
    assert main(["shard", str(tmp_path / "text"), "--glob", "*.txt", "-o", out, "--separator", "10"]) == 0
    assert TokenDataset(out)[:].tobytes() == b"aaa\nbb\nc\n"
    assert "9 tokens from 3 files in 1 shards" in capsys.readouterr().out
    assert main(["verify", out]) == 0 and "every checksum right" in capsys.readouterr().out
    assert main(["shard", str(tmp_path / "text" / "*.md"), "-o", out]) == 1
    assert "matches no file" in capsys.readouterr().err
    assert main(["shard", str(tmp_path / "text"), "-o", out]) == 1 and "--overwrite" in capsys.readouterr().err
    (tmp_path / "empty").touch()
    assert main(["shard", str(tmp_path / "empty"), "-o", str(tmp_path / "new")]) == 1
    assert "empty" in capsys.readouterr().err and not (tmp_path / "new").exists()
    damage(tmp_path / "out" / "shard-00000.bin", flip)
    assert main(["info", out]) == 0 and main(["verify", out]) == 1 and "damaged" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["shard", "--nonsense"])
    assert stop.value.code == 2
