"""The JSON-Schema-Test-Suite: see suite.py."""

import json

import pytest

import suite


@pytest.mark.parametrize("draft", suite.DRAFTS)
def test_suite(draft):
    counts, failures = suite.run(draft)
    assert not failures
    assert counts["schemas"] > 200
    assert counts == json.loads(suite.COUNTS.read_text())[draft]
