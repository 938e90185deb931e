"""schemathesis against /openapi.json: no 5xx, no status or header or body that the document does not tell of, data that the
schemas refuse is refused. 2,000 examples a route. Only with `make test-long` (TEST_SCALE 10), which installs schemathesis: it needs
a tenth of a second for each example, so test_conformance.py is what `make test` has instead.
"""
import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import ROOT, SCALE, SLOW, Server
from test_conformance import FLAGS

if SCALE < 10:
    pytest.skip("schemathesis runs with make test-long", allow_module_level=True)
if importlib.util.find_spec("schemathesis") is None:
    pytest.skip("schemathesis is not installed: scripts/setup.sh venv-long", allow_module_level=True)

CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
          "response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance")
POOLED = ROOT / "tests/golden/pooling"
EXAMPLES = 2000
GET = ["/v1/models", "/v1/models/{name}", "/health", "/readyz", "/livez", "/ping", "/version", "/metrics", "/load", "/openapi.json"]
ADMIN = ["/abort_requests", "/reset_prefix_cache", "/weir/workers", "/debug/requests", "/tokenizer_info"]
GROUPS = [
    ("generation", None, ["/v1/completions", "/v1/chat/completions"], EXAMPLES),
    ("tokens", None, ["/tokenize", "/detokenize"], EXAMPLES),
    ("pooling", "llama-embed", ["/v1/embeddings", "/pooling", "/score", "/v2/rerank"], EXAMPLES),
    ("classes", "bert-labels", ["/classify"], EXAMPLES),
    ("the same handlers", "llama-embed", ["/v1/score", "/v1/rerank", "/rerank"], EXAMPLES // 10),
    ("bodies without", None, GET, EXAMPLES // 10),
    ("admin", None, ADMIN[:1], EXAMPLES),
    ("admin without bodies", None, ADMIN[1:], EXAMPLES // 10),
]


@pytest.mark.parametrize("name,model,paths,examples", GROUPS, ids=[g[0] for g in GROUPS])
@pytest.mark.slow_sanitized
def test_schemathesis(name, model, paths, examples, tmp_path):
    server = Server(*FLAGS, "--enable-admin-api", "--enable-tokenizer-info-endpoint", **({"model": POOLED / model} if model else {}))
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(pathlib.Path(__file__).parent)}
    args = [str(pathlib.Path(sys.executable).parent / "st"), "run", server.url + "/openapi.json", "--url", server.url, "--checks", CHECKS,
            "--phases", "coverage,fuzzing", "--max-examples", str(examples), "--seed", "1", "--continue-on-failure", "--no-shrink",
            "--suppress-health-check", "all", "--request-timeout", str(30 * SLOW), "--warnings", "off"]
    for path in paths:
        args += ["--include-path", path]
    done = subprocess.run(args, env=env, cwd=tmp_path, capture_output=True, text=True)
    server.stop()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counts = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counts and counts[1] == counts[2], done.stdout[-3000:]
    if examples == EXAMPLES:
        assert int(counts[1]) >= examples * len(paths), done.stdout[-3000:]
