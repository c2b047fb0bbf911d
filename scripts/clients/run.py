"""The clients of this folder against a service of their own, with an agent of the embedded gateway."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import urllib.request

import model
import python_clients

PATIENCE = 60
NODE = pathlib.Path(os.environ["ZEROONE_CLIENTS_NODE"])


def serve(program, home):
    command = [program, "serve", "--data", f"{home}/data", "--bind", "127.0.0.1:0", "--runtime", "process"]
    service = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in service.stdout:
        if line.startswith("listening on "):
            return service, line.removeprefix("listening on ").strip()
    raise SystemExit("the service ended before it was ready")


def call(url, key, method, path, body=None):
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url + path, method=method, headers=headers, data=data)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def main():
    models = model.Model()
    with tempfile.TemporaryDirectory() as home:
        service, url = serve(os.path.abspath(sys.argv[1]), home)
        try:
            key = pathlib.Path(home, "data", "admin.key").read_text().strip()
            agent = {"name": "Ada", "provider": "openai", "model": "m", "apiKey": "k", "providerUrl": models.url()}
            agent = call(url, key, "POST", "/api/agents", agent)
            call(url, key, "GET", f"/api/agents/{agent['id']}/wait?timeout=60")
            slug = agent["slug"]
            left = python_clients.check_all(f"{url}/v1", key, slug, home)
            # Where node finds its packages is decided by where the program is.
            script = NODE / "node_clients.mjs"
            script.write_text(pathlib.Path(__file__).with_name("node_clients.mjs").read_text())
            node = ["node", script, f"{url}/v1", key, slug]
            left += int(subprocess.run(node, capture_output=False, stdout=subprocess.PIPE, text=True, timeout=120, check=True).stdout)
            assert models.wait_for_cancelled(left, 10), f"{models.cancelled} of {left} answers ended with their readers"
            call(url, key, "DELETE", f"/api/agents/{agent['id']}")
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(PATIENCE)
    print("openai (Python and Node), litellm, langchain-openai, the AI SDK and llm talk to an agent")


main()
