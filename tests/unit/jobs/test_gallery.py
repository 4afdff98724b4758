"""The rows of a report as HTML: what they can be sorted by, and how they are called."""

import math
import re

from run_batch.jobs.watch.answer_logprobs import AnswerLogprob
from run_batch.jobs.watch.gallery import gallery
from run_batch.jobs.watch.report_input import InputCells
from run_batch.jobs.watch.report_sample import SampledRow


def test_a_row_is_sorted_by_its_tokens_time_largest_image_and_certainty_of_a_token() -> None:
    cells = {"row_id": "a", "text": "t", "generated_tokens": 5, "prompt_tokens": 7}
    row = SampledRow(3, ["random"], cells, seconds=1.5, logprob=AnswerLogprob(2, -3.0))
    html = gallery([row], {3: InputCells(sizes=[(10, 10), (30, 20), (4, 4)])}, 1)
    (attributes,) = re.findall("<article ([^>]*)>", html)
    assert dict(re.findall(r'data-(\w+)="([-\d.]+)"', attributes)) == {
        "tokens": "5",
        "prompt": "7",
        "seconds": "1.5",
        "pixels": "600",
        "logprob": "-1.5",
    }
    assert "-1.500 a token, -3.000 in all, of 2 tokens" in html and 'aria-label="row a"' in html
    for order in ("tokens-least", "prompt", "seconds", "pixels-least", "logprob-least"):
        assert f'<option value="{order}">' in html


def test_rows_cannot_be_sorted_by_what_none_of_them_has() -> None:
    failed = SampledRow(0, ["failed"], {"row_id": "a", "error": "bad: why"})
    broken = SampledRow(1, ["random"], {"row_id": "b", "text": "t"}, logprob=AnswerLogprob(1, math.nan))
    html = gallery([failed, broken], {}, 2)
    assert re.findall('<select id="order".*?</select>', html)[0].count("<option") == 1 and "data-logprob" not in html
    assert '<option value="error: bad">' in html and 'data-finish="error: bad"' in html
