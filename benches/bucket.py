"""A bucket on this machine that takes so many bytes a second: what `migrate` asks of Google Cloud Storage's XML API, and no
more. The tests have a strict one (tests/it/gcs_server); this one is for the stop-watch."""

import email.utils
import os
import tempfile
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape


class Bucket:
    """Serves `gs://bucket`; `env` is what a client needs."""

    def __init__(self, rate):
        self.folder = tempfile.TemporaryDirectory(prefix="migrate-bench-bucket-")
        self.rate, self.lock, self.due, self.numbers = rate, threading.Lock(), 0.0, 0
        self.objects, self.uploads = {}, {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"bucket": self}))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.env = {"GOOGLE_BASE_URL": f"http://127.0.0.1:{self.server.server_port}", "GOOGLE_BEARER_TOKEN": "bench",
                    "BENCH_STORE": "gs://bucket/bench"}

    def wait_for(self, count):
        """Until `count` more bytes may pass. All connections share the rate."""
        with self.lock:
            now = time.perf_counter()
            self.due = max(self.due, now) + count / self.rate
            wait = self.due - now
        time.sleep(wait)

    def number(self):
        with self.lock:
            self.numbers += 1
            return self.numbers

    def stored(self):
        return sum(os.path.getsize(path) for parts in self.objects.values() for path in parts)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()


class Handler(BaseHTTPRequestHandler):
    """One connection. An object is a list of files, as it was uploaded."""

    protocol_version = "HTTP/1.1"
    bucket = None

    def log_message(self, *_):
        pass

    def asked(self):
        path, _, query = self.path.partition("?")
        _, _, key = path.lstrip("/").partition("/")
        return urllib.parse.unquote(key), dict(urllib.parse.parse_qsl(query, keep_blank_values=True))

    def reply(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def take_body(self):
        """The body in a file, no faster than the rate."""
        left = int(self.headers.get("Content-Length", 0))
        path = os.path.join(self.bucket.folder.name, str(self.bucket.number()))
        with open(path, "wb") as file:
            while left > 0:
                piece = self.rfile.read(min(left, 1 << 16))
                if not piece:
                    break
                self.bucket.wait_for(len(piece))
                file.write(piece)
                left -= len(piece)
        return path

    def do_PUT(self):
        key, query = self.asked()
        path = self.take_body()
        if "uploadId" in query:
            self.bucket.uploads[query["uploadId"]][int(query["partNumber"])] = path
        elif self.headers.get("x-goog-if-generation-match") == "0" and key in self.bucket.objects:
            return self.reply(412)
        else:
            self.bucket.objects[key] = [path]
        self.reply(200, headers=[("ETag", '"1"'), ("x-goog-generation", "1")])

    def do_POST(self):
        key, query = self.asked()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploads" in query:
            upload = str(self.bucket.number())
            self.bucket.uploads[upload] = {}
            return self.reply(200, f"<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>{escape(key)}</Key><UploadId>"
                                   f"{upload}</UploadId></InitiateMultipartUploadResult>".encode())
        parts = self.bucket.uploads.pop(query["uploadId"])
        self.bucket.objects[key] = [parts[number] for number in sorted(parts)]
        self.reply(200, b'<CompleteMultipartUploadResult><Location/><Bucket>bucket</Bucket><Key/><ETag>"1"</ETag>'
                        b"</CompleteMultipartUploadResult>", [("x-goog-generation", "1")])

    def do_DELETE(self):
        key, query = self.asked()
        self.bucket.uploads.pop(query.get("uploadId"), None)
        self.bucket.objects.pop(key, None)
        self.reply(204)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        key, query = self.asked()
        if not key:
            return self.list(query)
        if key not in self.bucket.objects:
            return self.reply(404)
        sizes = [os.path.getsize(path) for path in self.bucket.objects[key]]
        total, status = sum(sizes), 200
        first, last = 0, total - 1
        headers = [("ETag", '"1"'), ("Last-Modified", email.utils.formatdate(usegmt=True))]
        if asked := self.headers.get("Range"):
            begin, _, end = asked.removeprefix("bytes=").partition("-")
            first, last, status = int(begin), min(int(end or last), last), 206
            headers.append(("Content-Range", f"bytes {first}-{last}/{total}"))
        body = b"" if self.command == "HEAD" else self.read(key, sizes, first, last)
        headers.append(("Content-Length", str(last - first + 1)))
        self.reply(status, body, headers)

    def read(self, key, sizes, first, last):
        found, at = [], 0
        for path, size in zip(self.bucket.objects[key], sizes):
            begin, end = max(first - at, 0), min(last + 1 - at, size)
            if begin < end:
                with open(path, "rb") as file:
                    file.seek(begin)
                    found.append(file.read(end - begin))
            at += size
        return b"".join(found)

    def list(self, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        keys, folders = [], set()
        for key in sorted(self.bucket.objects):
            if not key.startswith(prefix):
                continue
            rest = key[len(prefix):]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                keys.append(key)
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"1\"</ETag><Size>"
            f"{sum(os.path.getsize(path) for path in self.bucket.objects[key])}</Size></Contents>" for key in keys)
        prefixes = "".join(f"<CommonPrefixes><Prefix>{escape(it)}</Prefix></CommonPrefixes>" for it in sorted(folders))
        self.reply(200, f"<ListBucketResult>{contents}{prefixes}</ListBucketResult>".encode())
