"""`python -m dtrain data`: write, describe and verify token datasets."""

from __future__ import annotations

import argparse
import fnmatch
import glob
import os
import sys
from collections.abc import Iterator, Sequence

from dtrain.data.shards import DTYPES, write_shards
from dtrain.errors import DataError, DtrainError


def find_files(inputs: Sequence[str], pattern: str = "*") -> list[str]:
    """The regular files meant by ``inputs`` (files, folders walked for names like ``pattern``, globs), sorted, each once."""
    found: set[str] = set()
    for item in inputs:
        if os.path.isdir(item):
            matches = _walk(item, pattern)
        elif os.path.isfile(item):
            matches = [item]
        else:
            matches = [f for f in glob.glob(item, recursive=True) if os.path.isfile(f)]
        if not matches:
            raise DataError(f"{item!r} matches no file; give files, folders or quoted globs such as 'text/**/*.txt'")
        found.update(matches)
    return sorted(found)


def _walk(folder: str, pattern: str) -> list[str]:
    matches = []
    for inner, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        matches += [os.path.join(inner, n) for n in names if fnmatch.fnmatch(n, pattern) and not n.startswith(".")]
    return [m for m in matches if os.path.isfile(m)]


def read_files(paths: Sequence[str]) -> Iterator[bytes]:
    """The contents of ``paths``, one document each."""
    for path in paths:
        with open(path, "rb") as f:
            yield f.read()


def shard(args: argparse.Namespace) -> None:
    """Write the dataset and print what was written."""
    paths = find_files(args.inputs, args.glob)
    index = write_shards(read_files(paths), args.output, args.shard_tokens, args.dtype,
                         separator=args.separator, overwrite=args.overwrite)
    print(f"{args.output}: {index['tokens']:,} tokens from {len(paths):,} files in {len(index['shards'])} shards, "
          f"{index['dtype']}, sha256 {index['sha256']}")


def info(args: argparse.Namespace) -> None:
    """Print a dataset's index; with `verify`, check every byte first."""
    from dtrain.data.tokens import TokenDataset

    dataset = TokenDataset(args.directory, verify="size")
    if args.command == "verify":
        dataset.verify()
    boundaries = dataset.index["boundaries"]
    print(f"{args.directory}: {len(dataset):,} tokens, {dataset.index['dtype']}, {len(dataset.shards)} shards, "
          f"{boundaries['documents'] if boundaries else 'unrecorded'} documents, sha256 {dataset.sha256}"
          + (", every checksum right" if args.command == "verify" else ""))


def parser() -> argparse.ArgumentParser:
    """The command line of `dtrain data`."""
    top = argparse.ArgumentParser(prog="dtrain data", description="Token datasets: write, describe, verify.")
    commands = top.add_subparsers(dest="command", required=True)
    write = commands.add_parser("shard", help="write text files as shards of tokens, one token a byte")
    write.add_argument("inputs", nargs="+", help="files, folders or quoted globs")
    write.add_argument("-o", "--output", required=True, help="folder to write; must be absent or empty")
    write.add_argument("--glob", default="*", help="names to take from folders (default: all but hidden ones)")
    write.add_argument("--shard-tokens", type=int, default=1 << 24, help="tokens in a shard (default: 16777216)")
    write.add_argument("--dtype", choices=list(DTYPES), default="uint8", help="type of a token on disk")
    write.add_argument("--separator", type=int, help="token to add after each file")
    write.add_argument("--overwrite", action="store_true", help="replace an older token dataset")
    write.set_defaults(run=shard)
    for name, text in (("info", "print what a dataset holds"), ("verify", "check every byte of a dataset")):
        command = commands.add_parser(name, help=text)
        command.add_argument("directory")
        command.set_defaults(run=info)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dtrain data ARGV`; the exit status is 0, 1 after an error in the data, 2 after one in the arguments."""
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except (DtrainError, OSError) as e:
        print(f"dtrain data: {e}", file=sys.stderr)
        return 1
    return 0
