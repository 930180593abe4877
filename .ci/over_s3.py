"""Runs a command beside an S3 server: `over_s3.py COMMAND…`.

The server is moto's, on a free port of this machine, with one empty bucket. The command finds it in the variables that
AWS's own tools read, and the bucket in GRIZZLY_CLUSTER_URL. When the command ends, so does everything it started.
"""

import logging
import os
import signal
import subprocess
import sys

try:
    import boto3
    from moto.server import ThreadedMotoServer
except ImportError as error:
    sys.exit(f"{error}; remedy: {sys.executable} -m pip install -r .ci/requirements.txt")

BUCKET = "grizzly"


def main(command):
    if not command:
        sys.exit(__doc__)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_TIMEOUT": "5s",
        # This process is the store; a test freezes it.
        "GRIZZLY_STORE_PID": str(os.getpid()),
    }
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT"],
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    must_not_overwrite(client)
    environment["GRIZZLY_CLUSTER_URL"] = f"s3://{BUCKET}/ci"
    run = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        return run.wait()
    finally:
        try:
            os.killpg(run.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def must_not_overwrite(client):
    """A writer is kept out by objects that are created only if they are new. A server that ignores that is no use."""
    client.put_object(Bucket=BUCKET, Key="probe", Body=b"1", IfNoneMatch="*")
    try:
        client.put_object(Bucket=BUCKET, Key="probe", Body=b"2", IfNoneMatch="*")
    except client.exceptions.ClientError:
        return
    sys.exit("this moto ignores If-None-Match; remedy: the version in .ci/requirements.txt")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
