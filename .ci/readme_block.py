"""Print the n-th code block of a language in a Markdown file, so that what is documented is what is run.

    python .ci/readme_block.py README.md 2          # the second ```bash block
    python .ci/readme_block.py README.md 1 python
"""

import re
import sys


def blocks(text: str, language: str) -> list[str]:
    """The contents of all code blocks of ``language``, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    path, number, language = sys.argv[1], int(sys.argv[2]), (*sys.argv[3:], "bash")[0]
    with open(path, encoding="utf-8") as file:
        found = blocks(file.read(), language)
    if not 1 <= number <= len(found):
        sys.exit(f"{path} has {len(found)} {language} blocks; there is no block {number}")
    print(found[number - 1], end="")
