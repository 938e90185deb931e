"""The chat format: the template as Jinja, and the same in Python with the parts that are learned marked."""

import json

BOS, EOT, END = "<|begin_of_text|>", "<|end_of_text|>", "<|end|>"
SPECIAL = [BOS, EOT, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", END, "<|spare|>"]
MARKS = ["<tool_call>", "</tool_call>"]  # shown in the text, so not special

TEMPLATE = """\
{%- macro text_of(content) %}
    {%- if content is string %}
        {{- content | trim }}
    {%- elif content %}
        {%- for part in content %}
            {{- part.text | trim }}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{{- bos_token }}
{%- set system = messages[0].role == 'system' %}
{%- if system or tools %}
    {{- '<|system|>' }}
    {%- if system %}
        {{- text_of(messages[0].content) }}
    {%- endif %}
    {%- if tools %}
        {{- '\\nTools:' if system else 'Tools:' }}
        {%- for tool in tools %}
            {%- set f = tool.function %}
            {{- '\\n{"name": ' + f.name | tojson + ', "description": ' + (f.description or '') | tojson + ', "arguments": {' }}
            {%- if f.parameters and f.parameters.properties %}
                {%- for name, kind in f.parameters.properties.items() %}
                    {{- ', ' if not loop.first else '' }}
                    {{- name | tojson + ': ' + (kind.type or 'string') | tojson }}
                {%- endfor %}
            {%- endif %}
            {{- '}}' }}
        {%- endfor %}
    {%- endif %}
    {{- '<|end|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- if not loop.first %}
            {{- raise_exception('A system message must come first') }}
        {%- endif %}
    {%- elif message.role in ['user', 'assistant', 'tool'] %}
        {{- '<|' + message.role + '|>' + text_of(message.content) }}
        {%- for call in message.tool_calls or [] %}
            {%- set f = call.function or call %}
            {{- '<tool_call>{"name": ' + f.name | tojson + ', "arguments": ' }}
            {{- f.arguments if f.arguments is string else f.arguments | tojson }}
            {{- '}</tool_call>' }}
        {%- endfor %}
        {{- '<|end|>' }}
    {%- else %}
        {{- raise_exception('This model knows the roles system, user, assistant and tool, not ' + message.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
"""


def tool_line(tool):
    f = tool["function"]
    kinds = {k: v["type"] for k, v in f["parameters"]["properties"].items()}
    return json.dumps(
        {"name": f["name"], "description": f["description"], "arguments": kinds}, ensure_ascii=False
    )


def parts(dialogue):
    """The dialogue as (text, learned) pieces: what the assistant says is learned, with the end of its turn."""
    messages, tools = dialogue["messages"], dialogue.get("tools")
    text = BOS
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    if system is not None or tools:
        text += "<|system|>" + (system or "")
        if tools:
            text += ("\nTools:" if system is not None else "Tools:") + "".join(
                "\n" + tool_line(t) for t in tools
            )
        text += END
    out = []
    for m in messages:
        if m["role"] == "system":
            continue
        text += f"<|{m['role']}|>"
        if m["role"] == "assistant":
            out += [(text, False), (m["content"] + END, True)]
            text = ""
        else:
            text += m["content"] + END
    if text:
        out.append((text, False))
    return out
