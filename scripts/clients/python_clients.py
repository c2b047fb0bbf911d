"""Clients for Python that others wrote. Each chats, streams, and goes away in the middle of an answer that has no end."""

import json
import os
import pathlib
import subprocess
import sys

import langchain_openai
import litellm
import openai

PATIENCE = 30
QUESTION = [{"role": "user", "content": "hello there"}]
ENDLESS = [{"role": "user", "content": "endless"}]


def check(name, whole, streamed):
    assert whole == "echo: hello there", f"{name}: {whole!r}"
    assert "".join(streamed) == "echo: hello there" and len(streamed) >= 3, f"{name}: {streamed!r}"


def check_openai(url, key, model):
    client = openai.OpenAI(base_url=url, api_key=key, timeout=PATIENCE, max_retries=0)
    assert model in [known.id for known in client.models.list()]
    whole = client.chat.completions.create(model=model, messages=QUESTION)
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=model, messages=QUESTION, stream=True, stream_options=options))
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    check("openai, chat", whole.choices[0].message.content, texts)
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens == 7, chunks[-1]

    whole = client.responses.create(model=model, input="hello there")
    events = list(client.responses.create(model=model, input="hello there", stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    check("openai, responses", whole.output_text, deltas)
    assert events[0].type == "response.created" and events[-1].type == "response.completed", events

    with client.chat.completions.create(model=model, messages=ENDLESS, stream=True) as stream:
        next(iter(stream))
    with client.responses.create(model=model, input="endless", stream=True) as stream:
        next(event for event in stream if event.type == "response.output_text.delta")
    for wrong in (
        lambda: openai.OpenAI(base_url=url, api_key="zo_wrong", max_retries=0).models.list(),
        lambda: client.chat.completions.create(model="nobody", messages=QUESTION),
    ):
        try:
            wrong()
            raise SystemExit("a wrong request was taken")
        except (openai.AuthenticationError, openai.NotFoundError) as error:
            assert error.code in ("invalid_api_key", "model_not_found"), error
    return 2


def check_litellm(url, key, model):
    asked = {"model": f"openai/{model}", "api_base": url, "api_key": key, "timeout": PATIENCE, "num_retries": 0}
    whole = litellm.completion(messages=QUESTION, **asked)
    chunks = litellm.completion(messages=QUESTION, stream=True, **asked)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    check("litellm", whole.choices[0].message.content, texts)
    stream = litellm.completion(messages=ENDLESS, stream=True, **asked)
    next(iter(stream))
    stream.completion_stream.close()
    return 1


def check_langchain(url, key, model):
    chat = langchain_openai.ChatOpenAI(model=model, base_url=url, api_key=key, timeout=PATIENCE, max_retries=0)
    whole = chat.invoke("hello there")
    check("langchain-openai", whole.content, [chunk.content for chunk in chat.stream("hello there") if chunk.content])
    stream = chat.stream("endless")
    next(chunk for chunk in stream if chunk.content)
    stream.close()
    return 1


def check_llm(url, key, model, home):
    folder = pathlib.Path(home, "llm")
    folder.mkdir()
    entry = f"- model_id: {model}\n  model_name: {model}\n  api_base: {url}\n  api_key_name: zeroone\n"
    (folder / "extra-openai-models.yaml").write_text(entry)
    (folder / "keys.json").write_text(json.dumps({"zeroone": key}))
    environment = {**os.environ, "LLM_USER_PATH": str(folder)}
    command = [sys.executable, "-m", "llm", "-m", model]

    def say(*words):
        done = subprocess.run([*command, *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert say("--no-stream", "hello there") == "echo: hello there"
    assert say("hello there") == "echo: hello there"
    endless = subprocess.Popen([*command, "endless"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert endless.stdout.read(5) == b"echo:"
    endless.kill()
    endless.wait(PATIENCE)
    return 1


def check_all(url, key, model, home):
    """How many endless answers were left."""
    left = check_openai(url, key, model) + check_litellm(url, key, model)
    return left + check_langchain(url, key, model) + check_llm(url, key, model, home)
