"""A model server: echoes the last message word by word, and counts the readers that went away."""

import http.server
import json
import threading


class Model(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cancelled = 0
        self.lock = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def wait_for_cancelled(self, count, patience):
        with self.lock:
            return self.lock.wait_for(lambda: self.cancelled >= count, patience)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = f"echo: {asked['messages'][-1]['content']}"
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        self.send_response(200)
        if not asked.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [choice], "usage": usage}).encode())
            return
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for word in text.split(" "):
                self.piece({"content": word if word == "echo:" else f" {word}"})
            while "endless" in text:
                self.piece({"content": " on"})
                self.server.lock.acquire()
                self.server.lock.wait(0.02)
                self.server.lock.release()
        except OSError:
            with self.server.lock:
                self.server.cancelled += 1
                self.server.lock.notify_all()
            return
        self.piece({}, "stop")
        self.event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def piece(self, delta, finish=None):
        self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def event(self, data):
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_):
        pass
