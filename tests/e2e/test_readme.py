"""The README's commands do what they say, on a product that runs."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from support.polling import until
from support.product import FLASHPLANE, KEPT, Product

README = Path(__file__).parents[2] / "README.md"
README_URL = "http://127.0.0.1:8000"
SECONDS = 240
# Repeats a command until it prints what its comment tells.
UNTIL = """
until_printed() {
  for _ in $(seq 200); do
    out=$("${@:2}" 2>&1 || true)
    if grep -Eq -- "$1" <<< "$out"; then echo "$out"; return; fi
    sleep 0.3
  done
  echo "no '$1' in: $out" >&2
  return 1
}
"""


def test_the_three_paths_of_the_readme(shared_product: Product, up: dict[str, Any]) -> None:
    printed = run(shared_product, "Three paths on a laptop", up)
    assert '"model":"sleepy"' in printed
    assert re.search(r"replica_usd_per_hour +0.01", printed)

    def only_the_built_in_engine_is_left() -> bool:
        return shared_product.command("status").stdout.count("\nreplica ") == 1

    until(only_the_built_in_engine_is_left, seconds=30, what="the deployments' engines to be gone")


def test_the_money_of_the_readme(shared_product: Product, up: dict[str, Any]) -> None:
    printed = run(shared_product, "Money on a laptop", up)
    assert re.search(r"reason +welcome", printed)
    assert re.search(r"violations +none", printed)
    assert (shared_product.folder / "books.beancount").read_text().count(" balance ") > 1


def run(product: Product, heading: str, up: dict[str, Any]) -> str:
    """Run the commands below a heading; return what they printed."""
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", UNTIL + script(heading, up)],
        cwd=product.folder,
        env={name: os.environ[name] for name in KEPT if name in os.environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr
    return ran.stdout


def script(heading: str, up: dict[str, Any]) -> str:
    """The commands below a heading, as they are run here."""
    section = README.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    commands = "".join(re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    assert commands.count("# until: ") > 3
    commands = re.sub(r"^(.+?) +# until: (.+)$", r'until_printed "\2" \1', commands, flags=re.M)
    bin_folder = FLASHPLANE.parent
    return commands.replace("$PWD/.venv/bin", str(bin_folder)).replace(
        README_URL, up["base_url"].removesuffix("/v1")
    )
