"""A proxy for prefill and decode on two servers, as those written for vLLM are: it knows HTTP and kv_transfer_params, and
nothing of Weir. `python kv_proxy.py PORT PREFILL_URL DECODE_URL`, or Proxy(...) in a test."""
import http.server
import json
import sys
import threading
import urllib.error
import urllib.request
import uuid


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def post(self, base, body, request_id):
        return urllib.request.urlopen(urllib.request.Request(
            base + self.path, json.dumps(body).encode(),
            {"Content-Type": "application/json", "X-Request-Id": request_id}), timeout=120)

    def prefill_leg(self, body, request_id):
        leg = {**body, "stream": False, "max_tokens": 1, "kv_transfer_params": {
            "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
            "remote_host": None, "remote_port": None}}
        leg.pop("stream_options", None)
        if self.path.endswith("/chat/completions"):
            leg["max_completion_tokens"] = 1
        with self.post(self.server.prefill, leg, request_id) as r:
            return json.load(r).get("kv_transfer_params")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request_id = str(uuid.uuid4())
        try:
            params = self.prefill_leg(body, request_id)
            self.server.params.append(params)
            if self.server.between:
                params = self.server.between(params)
            if params:
                body["kv_transfer_params"] = params
            answer = self.post(self.server.decode, body, request_id)
        except urllib.error.HTTPError as e:
            answer = e
        data = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Proxy:
    """between: what happens to the parameters on the way, for tests."""

    def __init__(self, prefill, decode, port=0, between=None):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.prefill, self.server.decode, self.server.between, self.server.params = prefill, decode, between, []
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def params(self):
        return self.server.params

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


if __name__ == "__main__":
    Proxy(sys.argv[2], sys.argv[3], int(sys.argv[1])).thread.join()
