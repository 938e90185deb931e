"""Flags that say which model, tokenizer and replicas there are, and how its output is constrained: --revision, --tokenizer,
--data-parallel-size, --structured-outputs-config."""
import json
import shutil

from conftest import BUILD, TINY
from test_first_light import post
from test_worker_faults import one_line

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def refused(*flags, program="weir", model=TINY, status=2):
    """The one line of a program that does not start."""
    got, line = one_line([BUILD / program, *(["serve"] if program == "weir" else []), model, *flags])
    assert got == status, (got, line)
    return line


def cached(tmp_path, template):
    """A Hugging Face cache with one repository: the tiny model, as main without a chat template, as v2 with one."""
    repo = tmp_path / "hub/models--harbour--tiny"
    for commit, ref in ((COMMIT, "v2"), ("f" * 40, "main")):
        shutil.copytree(TINY, repo / "snapshots" / commit)
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / ref).write_text(commit)
        (repo / "snapshots" / commit / "chat_template.jinja").write_text(template if ref == "v2" else "main")
    return repo


def rendered(server):
    status, text = post(server, "/tokenize", {"messages": [{"role": "user", "content": "x"}]})
    assert status == 200, text
    status, text = post(server, "/detokenize", {"tokens": json.loads(text)["tokens"]})
    return json.loads(text)["prompt"]


def test_revision(serve, tmp_path):
    repo = cached(tmp_path, "second revision")
    for name in ("tokenizer_config.json", "chat_template.json"):  # a template there would come first
        for folder in (repo / "snapshots").iterdir():
            if (folder / name).exists():
                config = json.loads((folder / name).read_text())
                config.pop("chat_template", None)
                (folder / name).write_text(json.dumps(config))
    env = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    s = serve("--revision", "v2", model="harbour/tiny", env=env)
    assert rendered(s) == "second revision"
    assert json.loads(s.get("/v1/models"))["data"][0]["id"] == "harbour/tiny"
    assert rendered(serve(model="harbour/tiny", env=env)) == "main"
    assert rendered(serve("--revision", COMMIT, "-tp", 2, model=repo)) == "second revision"
    for program in ("weir", "weir-worker"):
        assert "which has no revisions" in refused("--revision", "main", program=program)
        assert "not its revision v9" in refused("--revision", "v9", program=program, model=repo)
        assert "no name of a branch" in refused("--revision", "../x", program=program, model=repo)
    assert "no model folder" in refused("--revision", "main", model=tmp_path / "none", status=1)


def test_tokenizer(serve, tiny, tmp_path):
    """Tokens and template come from the folder; sampling defaults and the vocabulary's size from the model."""
    tokenizer = json.loads((TINY / "tokenizer.json").read_text())
    config = json.loads((TINY / "tokenizer_config.json").read_text())
    config["chat_template"] = "elsewhere"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    s = serve("--tokenizer", tmp_path)
    assert rendered(s).strip() == "elsewhere" and rendered(tiny) != "elsewhere"

    def ids(server, text):
        return json.loads(post(server, "/tokenize", {"prompt": text, "add_special_tokens": False})[1])["tokens"]

    assert ids(s, "lantern") == ids(tiny, " lantern") != ids(tiny, "lantern")
    body = {"prompt": [5, 6, 7], "max_tokens": 8, "temperature": 0, "logprobs": 0, "return_tokens_as_token_ids": True}
    answers = [json.loads(post(x, "/v1/completions", body)[1]) for x in (s, tiny)]
    assert answers[0]["choices"][0]["logprobs"]["tokens"] == answers[1]["choices"][0]["logprobs"]["tokens"]
    # For routers it is another model: one worker's tokens must not go to the other.
    assert answers[0]["system_fingerprint"] != answers[1]["system_fingerprint"]
    choice = {"prompt": "x", "max_tokens": 30, "guided_choice": ["yes", "no"]}
    assert json.loads(post(s, "/v1/completions", choice)[1])["choices"][0]["text"] in ("yes", "no")

    n = json.loads((TINY / "config.json").read_text())["vocab_size"]
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": n, "content": "<one-too-many>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    line = refused("--tokenizer", tmp_path, program="weir-worker", status=1)
    assert f"vocabulary of {n + 1} tokens is larger than the model's of {n}" in line, line
    assert "no folder" in refused("--tokenizer", tmp_path / "none", program="weir-worker", status=1)


def test_replicas(serve):
    s = serve("-dp", 2, "--mock", "--enable-admin-api")
    assert len(json.loads(s.get("/weir/workers"))["workers"]) == 2 == len(s.worker_pids())
    s = serve("--data-parallel-size", 1, "--workers", 1, "--mock")
    assert len(s.worker_pids()) == 1
    assert "contradicts --workers 3" in refused("--data-parallel-size", 2, "--workers", 3)
    assert "weir serve --data-parallel-size" in refused("-dp", 2, program="weir-worker")


def test_structured_outputs_config(serve, tiny):
    """Each key does what the flag of its name does."""
    schema = {"type": "object", "properties": {"a": {"const": [1, 2]}}, "required": ["a"]}
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 60, "temperature": 0,
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}
    s = serve("--structured-outputs-config", json.dumps({"disable_any_whitespace": True, "backend": "xgrammar"}),
              "--structured-outputs-config.reasoning_parser", "qwen3")
    status, text = post(s, "/v1/chat/completions", {**body, "chat_template_kwargs": {"enable_thinking": False}})
    answer = json.loads(text)
    assert status == 200 and answer["choices"][0]["message"]["content"].replace(" ", "") == '{"a":[1,2]}', text
    assert "\n" not in answer["choices"][0]["message"]["content"]
    line = next(x for x in s.output().splitlines() if "configuration" in x)
    assert "reasoning-parser=qwen3" in line and "guided-decoding-disable-any-whitespace=true" in line, line
    for config, why in (({"enable_in_reasoning": True}, "enable_in_reasoning"), ({"grammar": 1}, "no key \"grammar\""),
                        ({"reasoning_parser_plugin": "/x.py"}, "reasoning_parser_plugin")):
        assert why in refused("--structured-outputs-config", json.dumps(config))


def test_prompts_in_one_step(serve, tiny):
    """--no-enable-chunked-prefill: other steps, the same tokens."""
    body = {"prompt": [list(range(5, 5 + n)) for n in (3, 200, 1500)], "max_tokens": 8, "temperature": 0}
    answers = [json.loads(post(s, "/v1/completions", body)[1]) for s in (serve("--no-enable-chunked-prefill"), tiny)]
    assert [c["text"] for c in answers[0]["choices"]] == [c["text"] for c in answers[1]["choices"]]
