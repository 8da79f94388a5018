"""The program with a role's own keys at an emulator that enforces IAM by itself, in processes of their own, as it is deployed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from stock_lakehouse.deployment.policies import Names, policies_of
from stock_lakehouse.deployment.rights import roles
from stock_lakehouse_tests.deployment.tools import ministack
from stock_lakehouse_tests.deployment.world import DAYS, LAYERS, TICKERS, Prices, deployed

pytestmark = pytest.mark.deploy
BUCKET, PREFIX, ACCOUNT, REGION = "stock-lake", "team/lake", "000000000000", "us-east-1"


@dataclass
class Cloud:
    """The emulator, and the temporary keys of each role."""

    endpoint: str
    keys: Mapping[str, Mapping[str, str]]
    folder: Path
    prices: Prices

    def run(self, role: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the program with the keys of `role`."""
        values = {
            "PATH": str(Path(sys.executable).parent),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "HOME": str(self.folder),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": REGION,
            **self.keys[role],
            "STOCK_LAKEHOUSE_LAKE_ROOT": f"s3://{BUCKET}/{PREFIX}",
            "STOCK_LAKEHOUSE_TICKERS": ",".join(TICKERS),
            "STOCK_LAKEHOUSE_SOURCE": "csv",
            "STOCK_LAKEHOUSE_CSV_FOLDER": str(self.prices.folder),
            "STOCK_LAKEHOUSE_FIRST_DATE": str(DAYS[0]),
            "STOCK_LAKEHOUSE_LAST_DATE": str(DAYS[-1]),
            "DAGSTER_HOME": str(self.folder / "dagster"),
        }
        command = [sys.executable, "-m", "stock_lakehouse", *arguments]
        return subprocess.run(
            command, env=values, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False
        )


def client(endpoint: str, service: str, keys: Mapping[str, str] | None = None) -> Any:
    given = keys or {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        **{name.lower(): value for name, value in given.items()},
    )


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    names = Names("aws", REGION, ACCOUNT, BUCKET, PREFIX, f"arn:aws:kms:{REGION}:{ACCOUNT}:key/of-the-lake")
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    with ministack(enforced=True) as endpoint:
        client(endpoint, "s3").create_bucket(Bucket=BUCKET)
        iam, sts, keys = client(endpoint, "iam"), client(endpoint, "sts"), {}
        for name, role in roles(deployed()).items():
            if role.trust not in ("ecs-tasks", "account", "ec2"):
                continue
            iam.create_role(
                RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
            )
            for part, document in policies_of(role, names).items():
                iam.put_role_policy(RoleName=name, PolicyName=part, PolicyDocument=json.dumps(document))
            found = sts.assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{name}", RoleSessionName="test")[
                "Credentials"
            ]
            keys[name] = {
                "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
                "AWS_SESSION_TOKEN": found["SessionToken"],
            }
        prices = Prices(folder / "prices")
        prices.deliver(DAYS[-2])
        yield Cloud(endpoint, keys, folder, prices)


def test_a_run_a_reader_and_upkeep_work_with_their_keys_and_a_reader_is_refused_raw(cloud: Cloud) -> None:
    made = cloud.run("run", "materialize", "--select", LAYERS)
    assert made.returncode == 0, made.stdout + made.stderr
    shown = cloud.run("reader", "show", "curated_stocks_daily", "AAA", "--csv")
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 11  # the header and the newest ten
    raw = cloud.run("reader", "show", "raw_stocks_daily", "AAA")
    assert raw.returncode != 0
    assert "must allow s3:ListBucket here" in " ".join(raw.stderr.split())
    kept = cloud.run("upkeep", "upkeep")
    assert kept.returncode == 0, kept.stdout + kept.stderr


def test_the_emulator_refuses_a_neighbours_calls_to_every_role(cloud: Cloud) -> None:
    admin = client(cloud.endpoint, "s3")
    beside = (f"{PREFIX}_evil/k", "team/other/k", f"{PREFIX}/raw/stocks_daily_evil/k", f"{PREFIX}/k", "team/k", "k")
    for key in beside:
        admin.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    done = []
    for name, keys in cloud.keys.items():
        store = client(cloud.endpoint, "s3", keys)
        calls = [
            *(
                (f"{call} {key}", getattr(store, f"{call}_object"), {"Key": key})
                for key in beside
                for call in ("get", "put", "delete")
            ),
            *(
                (f"list {prefix!r}", store.list_objects_v2, {"Prefix": prefix})
                for prefix in ("", "team/", f"{PREFIX}/", f"{PREFIX}_evil/")
            ),
            ("list without a prefix", store.list_objects_v2, {}),
            ("list versions", store.list_object_versions, {}),
            ("the bucket", store.delete_bucket, {}),
        ]
        assert len(calls) >= 24
        for what, call, arguments in calls:
            try:
                call(Bucket=BUCKET, **arguments)
            except ClientError:
                continue
            done.append(f"{name}: {what}")
    assert done == []
