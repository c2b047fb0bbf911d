"""The official `openai` client and a WebSocket client against `zeroone gateway`, with a model server of our own."""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import urllib.request

import openai
import websockets.sync.client

PATIENCE = 20
SEND = "Send: POST /pair with header X-Pairing-Code: "


class Model(http.server.BaseHTTPRequestHandler):
    """Echoes the last message, streamed or not; calls the caller's tool when there is one."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = f"echo: {asked['messages'][-1]['content']}"
        names = [tool["function"]["name"] for tool in asked.get("tools", [])]
        message = {"role": "assistant", "content": text}
        if names == ["weather"]:
            call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        if asked.get("stream"):
            pieces = [{"choices": [{"index": 0, "delta": {"content": word + " "}}]} for word in text.split()]
            pieces.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            pieces.append({"choices": [], "usage": usage})
            body = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + "data: [DONE]\n\n"
            self.answer("text/event-stream", body)
        else:
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.answer("application/json", json.dumps({"choices": [choice], "usage": usage}))

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def read_banner(gateway):
    """The address and the code, as a client would find them in the log."""
    url = code = None
    for line in gateway.stdout:
        if "listening on " in line:
            url = line.split("listening on ")[1].strip()
        if line.strip().startswith(SEND):
            code = line.strip()[len(SEND) :]
        if "Press Ctrl+C" in line:
            return url, code
    raise SystemExit("the gateway ended before it was ready")


def pair(url, code):
    request = urllib.request.Request(f"{url}/pair", method="POST", headers={"X-Pairing-Code": code})
    return json.load(urllib.request.urlopen(request, timeout=PATIENCE))["token"]


def check_openai(url, token):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=token, timeout=PATIENCE, max_retries=0)
    assert [model.id for model in client.models.list()] == ["test-model"]

    messages = [{"role": "user", "content": "hello there"}]
    whole = client.chat.completions.create(model="test-model", messages=messages)
    assert whole.choices[0].message.content == "echo: hello there", whole
    assert whole.usage.total_tokens == 7, whole

    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="test-model", messages=messages, stream=True, stream_options=options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == "echo: hello there", text
    assert len(chunks) > 4 and chunks[-1].usage.total_tokens == 7, chunks

    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    called = client.chat.completions.create(model="test-model", messages=messages, tools=tools)
    assert called.choices[0].message.tool_calls[0].function.name == "weather", called
    assert called.choices[0].finish_reason == "tool_calls", called

    try:
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()
        raise SystemExit("a wrong token was taken")
    except openai.AuthenticationError:
        pass


def check_websocket(url, token):
    address = url.replace("http", "ws", 1) + "/ws/chat"
    connect = websockets.sync.client.connect
    for way in ({"uri": f"{address}?token={token}"}, {"uri": address, "subprotocols": ["zeroclaw.v1", f"bearer.{token}"]}):
        with connect(**way, open_timeout=PATIENCE) as socket:
            socket.send(json.dumps({"type": "message", "content": "hello"}))
            seen = [json.loads(socket.recv(timeout=PATIENCE))]
            while seen[-1]["type"] not in ("done", "error"):
                seen.append(json.loads(socket.recv(timeout=PATIENCE)))
            assert seen[-1]["type"] == "done" and seen[-1]["full_response"].strip() == "echo: hello", seen
            assert any(message["type"] == "chunk" for message in seen), seen


def main():
    model = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=model.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as home:
        pathlib.Path(home, "workspace").mkdir()
        environment = {
            "HOME": home,
            "ZEROCLAW_WORKSPACE": f"{home}/workspace",
            "ZEROCLAW_GATEWAY_PORT": "0",
            "PROVIDER": f"custom:http://127.0.0.1:{model.server_port}/v1",
            "ZEROCLAW_MODEL": "test-model",
            "API_KEY": "test-key",
            "PATH": os.environ["PATH"],
        }
        gateway = subprocess.Popen([sys.argv[1], "gateway"], env=environment, stdout=subprocess.PIPE, text=True)
        try:
            url, code = read_banner(gateway)
            token = pair(url, code)
            check_openai(url, token)
            check_websocket(url, token)
        finally:
            gateway.terminate()
            gateway.wait(PATIENCE)
    print(f"openai {openai.VERSION} and websockets {websockets.__version__} talk to the gateway")


main()
