"""Print the n-th ```bash block of a Markdown file, so that what is documented is what is run.

    python .ci/readme_block.py README.md 2
"""

import re
import sys


def blocks(text: str) -> list[str]:
    """The contents of all ```bash blocks, in order."""
    return re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    path, number = sys.argv[1], int(sys.argv[2])
    with open(path, encoding="utf-8") as file:
        found = blocks(file.read())
    if not 1 <= number <= len(found):
        sys.exit(f"{path} has {len(found)} bash blocks; there is no block {number}")
    print(found[number - 1], end="")
