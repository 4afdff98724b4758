"""The hint that error messages end with where a name is not known."""

import subprocess
import sys

from run_batch.model.checkpoint.nearest_name import did_you_mean, nearest_or_all

KNOWN = {"rows_per_shard", "columns", "path"}


def test_a_mistyped_name_gets_the_nearest_known_one_in_full() -> None:
    assert did_you_mean("rows_per_shrad", KNOWN) == "; did you mean rows_per_shard?"
    assert did_you_mean("colunms", KNOWN, "output.") == "; did you mean output.columns?"
    assert nearest_or_all("colunms", KNOWN, "output.") == "; did you mean output.columns?"


def test_a_name_near_to_none_gets_no_hint_or_all_known_ones_in_order() -> None:
    assert did_you_mean("xyz", KNOWN) == ""
    assert nearest_or_all("xyz", KNOWN) == "; known: columns, path, rows_per_shard"


def test_the_hint_imports_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import run_batch.model.checkpoint.nearest_name; "
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(loaded - set(sys.stdlib_module_names)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['run_batch']"
