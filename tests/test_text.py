"""Text of the language tasks: codes of characters, what a corpus holds, and that no task of training shares text with evaluation."""

import sysconfig
from pathlib import Path

import numpy as np
import pytest

from common.data import text
from common.data.text import BLOCK, SEGMENTS, TASK_BLOCKS, VOCABULARY, decode, encode, excerpt, open_corpus
from common.errors import UserError

LEAST = SEGMENTS * BLOCK


def write(path: Path, size: int = LEAST) -> str:
    """A text whose blocks all differ, as each says its number."""
    path.write_text("".join(f"{k:07}\n" for k in range(-(-size // 8)))[:size])
    return str(path)


def test_encode_printable_text_decodes_to_itself():
    shown = "".join(map(chr, range(0x20, 0x7F))) + "\n\t"
    assert decode(encode(shown.encode())) == shown
    assert sorted(encode(shown.encode())) == list(range(1, VOCABULARY))


def test_encode_other_characters_are_one_code_each():
    codes = encode("a\u00e9\u20ac\U0001f600\x07b\r\n".encode() + b"\xff")
    assert codes.tolist() == [*encode(b"a"), 0, 0, 0, 0, *encode(b"b"), 1, 0]
    assert decode(codes) == "a\ufffd\ufffd\ufffd\ufffdb\n\ufffd"


def test_standard_library_is_always_there_and_in_order():
    corpus = open_corpus("", 0)
    lengths = {split: len(blocks) for split, blocks in corpus.blocks.items()}
    assert min(lengths.values()) > TASK_BLOCKS and lengths["outer_train"] * 15 == lengths["outer_test"] * 35
    part = sysconfig.get_path("stdlib") + "/asyncio"
    assert open_corpus(part, 0).fingerprint == open_corpus(part, 1).fingerprint != corpus.fingerprint
    assert "import " in decode(corpus.blocks["outer_train"][:200].ravel())


def test_outer_splits_share_no_text(tmp_path):
    corpus = open_corpus(write(tmp_path / "a.txt", 4 * LEAST), 0)
    trained, evaluated = ({block.tobytes() for block in blocks} for blocks in corpus.blocks.values())
    assert len(trained) == 4 * 35 and len(evaluated) == 4 * 15 and not trained & evaluated
    other = open_corpus(str(tmp_path / "a.txt"), 1)
    assert {block.tobytes() for block in other.blocks["outer_test"]} != evaluated


@pytest.mark.parametrize("size, counts", [(LEAST, (12, 2, 1)), (50 * LEAST, (205, 26, 25))])
def test_excerpt_inner_splits_share_no_block(tmp_path, size, counts):
    corpus = open_corpus(write(tmp_path / "a.txt", size), 0)
    for outer_split, blocks in corpus.blocks.items():
        data = excerpt(corpus, np.random.default_rng(3), outer_split)
        assert tuple(data) == ("train", "valid", "test") and tuple(map(len, data.values())) == counts
        rows = [row.tobytes() for part in data.values() for row in part]
        assert len(set(rows)) == len(rows) == sum(counts)
        known = [block.tobytes() for block in blocks]
        places = np.sort([known.index(row) for row in rows])
        assert np.sum(np.diff(places) != 1) <= 1  # one excerpt, which may continue at the beginning


def test_excerpt_same_seed_gives_the_same_task(tmp_path):
    corpus = open_corpus(write(tmp_path / "a.txt", 50 * LEAST), 0)
    one, same, other = (excerpt(corpus, np.random.default_rng(seed), "outer_train") for seed in (1, 1, 2))
    assert all(np.array_equal(one[split], same[split]) for split in one)
    assert not np.array_equal(one["train"], other["train"])


def test_folder_is_read_in_the_order_of_names(tmp_path):
    for name in ("b/one.md", "b/two", "a.txt", ".hidden", ".git/file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name)
    (tmp_path / "picture").write_bytes(b"\x89PNG\0\0")
    parts = [(tmp_path / name).read_bytes() + b"\n" for name in ("a.txt", "b/one.md", "b/two")]
    (tmp_path / "b/two").with_name("joined").write_bytes(b"".join(parts)[:-1])
    joined = open_corpus(str(tmp_path / "b/joined"), 0).fingerprint
    (tmp_path / "b/joined").unlink()
    assert open_corpus(str(tmp_path), 0).fingerprint == joined


def test_text_beyond_the_limit_is_not_read(tmp_path, monkeypatch):
    place = write(tmp_path / "a.txt", 2 * LEAST)
    monkeypatch.setattr(text, "READ_BYTES", LEAST)
    corpus = open_corpus(place, 0)
    assert sum(map(len, corpus.blocks.values())) == SEGMENTS


def test_unusable_text_is_rejected(tmp_path):
    short, binary = tmp_path / "short.txt", tmp_path / "binary"
    short.write_text("too short")
    binary.write_text("text", encoding="utf-16")
    for place, sentence in (
        (tmp_path / "none", "does not exist"),
        (short, r"has 10 characters: give a text of at least 51,200"),
        (binary, "has no text in UTF-8"),
    ):
        with pytest.raises(UserError, match=sentence):
            open_corpus(str(place), 0)


def test_missing_standard_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(text.sysconfig, "get_path", lambda name: str(tmp_path / "lib.zip"))
    with pytest.raises(UserError, match=r"the standard library in .*lib.zip \(dataset.text is empty\) does not exist"):
        open_corpus("", 0)
