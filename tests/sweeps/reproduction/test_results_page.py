"""What the page of results says about counts and about its runs."""

import pytest

from sweeps.reproduction.claims import Claim, Plan
from sweeps.reproduction.reproduce import _facts
from sweeps.reproduction.results_page import Reproduction, summary_sentence
from sweeps.reproduction.row import Row
from sweeps.reproduction.verdicts import Verdict

MEASURED = Claim("", "value", [])
COUNT = Claim("", "count", [])
QUESTION = Claim("", "greater", [], is_question=True)
BEYOND = Claim("", "greater", [], is_beyond=True)


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        (
            1,
            "1 measured claim: 1 reproduced. 1 count or derivation: 1 corrected. 1 open question: 1 no. "
            "1 statement beyond the reports: 1 yes.",
        ),
        (
            2,
            "2 measured claims: 2 reproduced. 2 counts and derivations: 2 corrected. 2 open questions: 2 no. "
            "2 statements beyond the reports: 2 yes.",
        ),
    ],
)
def test_the_summary_counts_claims_in_the_singular_and_the_plural(times, sentence):
    words = ((MEASURED, "reproduced"), (COUNT, "corrected"), (QUESTION, "no"), (BEYOND, "yes"))
    verdicts = [Verdict(claim, word, "") for claim, word in words]
    assert summary_sentence(Reproduction(Plan("full", [], {}), {}, {}, {"x": verdicts * times})) == sentence


def test_the_page_states_dates_and_machines_as_far_as_they_are_known():
    row, later = (Row("a", "", "0", date=f"2026-11-{day}", versions={"torch": "2.15.0"}) for day in (27, 28))
    (_, one), (_, both) = _facts({"a": {"0": row}}, None), _facts({"a": {"0": row, "1": later}}, None)
    assert one == "Trained on 2026-11-27, with torch 2.15.0."
    assert both == "Trained from 2026-11-27 to 2026-11-28, with torch 2.15.0."
